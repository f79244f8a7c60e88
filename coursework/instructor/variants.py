"""Variants of the homework, one per student: another normalization, residual target, weight of the bounds'
loss and size of the imagined noise, which change what the student writes (2 x 8 x 4 x 4 ways); other bounds
of the log-variance; and two letters of the bug hunt.

    python coursework/blank.py OUT --student "Ada Lovelace"     # the student's folder, with variant.json
    python coursework/instructor/variants.py "Ada Lovelace"     # prints what Ada's variant is

A variant follows from the name alone. It is a list of replacements in the text of the real ftfl.py, and notes
at the end of five docstrings: the outcome is the variant's solution, and blanked it is what the student
gets. So it is solved and checked by the same code.
"""

import ast
import hashlib
import json
import sys
from math import exp

NORMALIZATIONS = ("mean absolute deviation", "range")
RESIDUALS = (0.8, 0.82, 0.85, 0.88, 0.9, 0.92, 0.95, 0.97)
BOUNDS_WEIGHTS = (0.005, 0.02, 0.03, 0.05)
NOISES = (0.7, 0.8, 0.9, 1.1)  # the std of what is imagined, in predicted stds
BOUNDS = ((1.0, -8.0), (0.25, -9.0), (0.75, -12.0))  # max_logvar, min_logvar
LETTERS = "ABCDEFGHIJKLMN"  # of the logs in data/bugs

STATISTICS = """\
            std, mean = torch.std_mean(self.raw_targets(batch), dim=2, keepdim=True)
            self.target_mean"""
INSTEAD = {
    "mean absolute deviation": """\
            targets = self.raw_targets(batch)
            mean = targets.mean(dim=2, keepdim=True)
            std = (targets - mean).abs().mean(dim=2, keepdim=True)
            self.target_mean""",
    "range": """\
            low, high = torch.aminmax(self.raw_targets(batch), dim=2, keepdim=True)
            mean, std = (high + low) / 2, (high - low) / 2
            self.target_mean""",
}
MEANING = {
    "mean absolute deviation": "target_std is the mean of |y - target_mean|",
    "range": "target_mean is the middle of smallest and largest y, target_std half their difference",
}


def variant_of(student):
    """The variant that belongs to a name: a dict, for variant.json. Case and spaces around it do not
    matter."""
    number = int(hashlib.sha256(" ".join(student.lower().split()).encode()).hexdigest(), 16)
    choices = []
    for options in (NORMALIZATIONS, RESIDUALS, BOUNDS_WEIGHTS, NOISES, BOUNDS):
        number, i = divmod(number, len(options))
        choices.append(options[i])
    normalization, residual, bounds_weight, noise, (max_logvar, min_logvar) = choices
    number, first = divmod(number, len(LETTERS))
    second = (first + 1 + number % (len(LETTERS) - 1)) % len(LETTERS)
    return {
        "normalization": normalization,
        "residual": residual,
        "bounds_weight": bounds_weight,
        "noise": noise,
        "max_logvar": max_logvar,
        "min_logvar": min_logvar,
        "bugs": sorted(LETTERS[i] for i in (first, second)),
    }


def replacements(variant):
    """(old, new) texts of ftfl.py."""
    c, high, low = variant["residual"], variant["max_logvar"], variant["min_logvar"]
    fixed = "), requires_grad=learned)"
    bounds = "A log-variance in [-10, 0.5] is a std in [0.007, 1.3]"
    yours = f"A log-variance in [{low:g}, {high:g}] is a std in [{exp(low / 2):.2g}, {exp(high / 2):.2g}]"
    return [
        (STATISTICS, INSTEAD[variant["normalization"]]),
        ("batch.next_obs - batch.obs", f"batch.next_obs - {c} * batch.obs"),
        ("next_obs = obs + prediction", f"next_obs = {c} * obs + prediction"),
        (
            "bounds_loss = 0.01 * (self.max_logvar",
            f"bounds_loss = {variant['bounds_weight']} * (self.max_logvar",
        ),
        ("prediction = mean + (0.5 * logvar)", f"prediction = mean + {variant['noise']} * (0.5 * logvar)"),
        (bounds, yours),
        (f"per_target, 0.5{fixed}", f"per_target, {high}{fixed}"),
        (f"per_target, -10.0{fixed}", f"per_target, {low}{fixed}"),
    ]


def notes(variant):
    """What the docstrings of five blanked functions say of the variant."""
    c, high, low = variant["residual"], variant["max_logvar"], variant["min_logvar"]
    return {
        "forward": f"the log-variance lies in [{low}, {high}].",
        "update": f"the weight of the bounds' loss is {variant['bounds_weight']}, not 0.01.",
        "sample": f"the noise has {variant['noise']} times the std that is predicted.",
        "to_transition": f"residual targets are s' - {c} s, not s' - s.",
        "fit_normalizers": f"{MEANING[variant['normalization']]}.\n        Inputs are as ever.",
    }


def with_note(text, name, note):
    """The text of ftfl.py, with a note at the end of the docstring of a method of Ensemble."""
    (ensemble,) = (node for node in ast.parse(text).body if getattr(node, "name", "") == "Ensemble")
    (method,) = (node for node in ensemble.body if getattr(node, "name", "") == name)
    docstring, lines = method.body[0], text.splitlines(keepends=True)
    last = docstring.end_lineno - 1
    before = lines[last].rstrip().removesuffix('"""').rstrip()  # empty if the quotes have a line of their own
    indent = " " * docstring.col_offset
    lines[last] = f"{before}\n\n" if before else "\n"
    lines[last] += f'{indent}Your variant: {note}\n{indent}"""\n'
    return "".join(lines)


def solve(text, variant):
    """The text of the real ftfl.py -> the text of the variant's solution."""
    for old, new in replacements(variant):
        assert text.count(old) == 1, f"ftfl.py has {text.count(old)} times: {old}"
        text = text.replace(old, new)
    for name, note in notes(variant).items():
        text = with_note(text, name, note)
    return text


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, json.dumps(variant_of(name)))

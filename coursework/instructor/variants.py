"""Variants of the homework, one per student: another normalization, residual target and bounds of the
log-variance; and two letters of the bug hunt.

    python coursework/blank.py OUT --student "Ada Lovelace"     # the student's folder, with variant.json
    python coursework/instructor/variants.py "Ada Lovelace"     # prints what Ada's variant is

A variant follows from the name alone. It is a list of replacements in the text of the real ftfl.py: the
outcome is the variant's solution, and blanked it is what the student gets. So it is solved and checked by
the same code.
"""

import hashlib
import json
import sys
from math import exp

NORMALIZATIONS = ("mean absolute deviation", "range")
RESIDUALS = (0.8, 0.9, 0.95)
BOUNDS = ((1.0, -8.0), (0.25, -9.0), (0.75, -12.0))  # max_logvar, min_logvar
LETTERS = "ABCDEFGHIJKLMN"  # of the logs in data/bugs

STATISTICS = """\
            std, mean = torch.std_mean(self.raw_targets(batch), 2, keepdim=True)
            self.target_mean"""
INSTEAD = {
    "mean absolute deviation": """\
            targets = self.raw_targets(batch)
            mean = targets.mean(2, keepdim=True)
            std = (targets - mean).abs().mean(2, keepdim=True)
            self.target_mean""",
    "range": """\
            low, high = torch.aminmax(self.raw_targets(batch), dim=2, keepdim=True)
            mean, std = (high + low) / 2, (high - low) / 2
            self.target_mean""",
}
MEANING = {
    "mean absolute deviation": "target_std is the mean of |y - target_mean|",
    "range": "target_mean is the middle of smallest and largest y,\n        target_std half their difference",
}


def variant_of(student):
    """The variant that belongs to a name: a dict, for variant.json. Case and spaces around it do not
    matter."""
    number = int(hashlib.sha256(" ".join(student.lower().split()).encode()).hexdigest(), 16)
    choices = []
    for options in (NORMALIZATIONS, RESIDUALS, BOUNDS):
        number, i = divmod(number, len(options))
        choices.append(options[i])
    normalization, residual, (max_logvar, min_logvar) = choices
    number, first = divmod(number, len(LETTERS))
    second = (first + 1 + number % (len(LETTERS) - 1)) % len(LETTERS)
    return {
        "normalization": normalization,
        "residual": residual,
        "max_logvar": max_logvar,
        "min_logvar": min_logvar,
        "bugs": sorted(LETTERS[i] for i in (first, second)),
    }


def replacements(variant):
    """(old, new) texts of ftfl.py."""
    c, high, low = variant["residual"], variant["max_logvar"], variant["min_logvar"]
    meaning, yours = MEANING[variant["normalization"]], "\n        Your variant: "
    forward, back = "logvar (seeds, networks, batch, obs + 1).", "rewards (...) in the environment's units."
    fitted, direct = "for the training that follows.", "prediction[..., :-1] if self.direct else "
    fixed = "), requires_grad=learned)"
    return [
        (STATISTICS, INSTEAD[variant["normalization"]]),
        (f'{fitted}"""', f'{fitted}{yours}{meaning}. Inputs as ever."""'),
        ("batch.next_obs - batch.obs  # DNP: s', not s' - s", f"batch.next_obs - {c} * batch.obs"),
        (f'{back}"""', f'{back}{yours}residual targets are s\' - {c} s, not s\' - s."""'),
        (f"{direct}obs + prediction", f"{direct}{c} * obs + prediction"),
        ("Std of 0.0067 to 1.3 in", f"Std of {exp(low / 2):.2g} to {exp(high / 2):.2g} in"),
        (f"shape, 0.5{fixed}", f"shape, {high}{fixed}"),
        (f"shape, -10.0{fixed}", f"shape, {low}{fixed}"),
        (f'{forward}"""', f'{forward}{yours}logvar lies in [{low}, {high}]."""'),
    ]


def solve(text, variant):
    """The text of the real ftfl.py -> the text of the variant's solution."""
    for old, new in replacements(variant):
        assert text.count(old) == 1, f"ftfl.py has {text.count(old)} times: {old}"
        text = text.replace(old, new)
    return text


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, json.dumps(variant_of(name)))

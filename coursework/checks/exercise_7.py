"""Exercise 7: two planted bugs, named from logs alone."""

import json
from pathlib import Path

from checks.bug_logs import answer_hash, gaps, read_log
from checks.common import check, hint

LOGS = Path("data/bugs")


def read_json(path):
    """What is in a JSON file, or a hint."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        hint(f"there is no {path} here; the handout shows what to write into it")
    except ValueError as error:
        hint(f"{path} is no JSON ({error}): a comma too many, or a quote that is missing?")


def assigned():
    """The letters to diagnose, as variant.json says; none if any two will do."""
    path = Path("variant.json")
    return list(read_json(path).get("bugs", [])) if path.exists() else []


def read_answers():
    """The two answers {letter: answer}; hints where something is missing."""
    answers = read_json("answers.json")
    letters = json.loads((LOGS / "key.json").read_text())["letters"]
    if not isinstance(answers, dict) or not all(isinstance(x, dict) for x in answers.values()):
        hint('answers.json must look so: {"C": {"bug": "...", "evidence": ["..."], "repair": "..."}}')
    for letter in answers:
        if letter not in letters:
            hint(f"answers.json: there is no log {letter}.csv in data/bugs")
    if missing := [letter for letter in assigned() if letter not in answers]:
        hint(f"answers.json: your letters are {' and '.join(assigned())}, and {missing[0]} is missing")
    if len(answers) < 2:
        hint(f"answers.json: diagnose two logs, not {len(answers)}")
    return answers


def differs_most(letter):
    """The group of tags in which a letter's log lies farthest outside of the correct runs', but for what a
    mistake reaches last."""
    found = gaps(read_log(LOGS / f"{letter}.csv"), read_log(LOGS / "correct.csv"))
    found = {tag: gap for tag, gap in found.items() if not tag.startswith(("eval/", "charts/"))}
    return max(found, key=lambda tag: max(found[tag].values())).split("/")[0]


@check("7a", "answers.json names, for two logs, a bug of the list, with evidence and a repair", seconds=10)
def answers_are_there():
    descriptions = json.loads((LOGS / "descriptions.json").read_text())
    for letter, answer in read_answers().items():
        if answer.get("bug") not in descriptions:
            hint(f'answers.json, {letter}: "bug" must be an id of data/bugs/descriptions.json')
        evidence = answer.get("evidence")
        if not isinstance(evidence, list) or not evidence:
            hint(f'answers.json, {letter}: "evidence" must be a list of logged tags, like ["model/nll"]')
        if len(evidence) > 3:
            hint(f"answers.json, {letter}: three tags of evidence at most: choose those that betray the bug")
        log = read_log(LOGS / f"{letter}.csv")
        if unknown := [tag for tag in evidence if tag not in log]:
            hint(f"answers.json, {letter}: {unknown[0]} is not a tag in {letter}.csv")
        if len(str(answer.get("repair", "")).split()) < 3:
            hint(f'answers.json, {letter}: "repair" is to say in words or code what has to be changed where')


@check("7b", "the bugs are the ones planted", seconds=20)
def bugs_are_right():
    key = json.loads((LOGS / "key.json").read_text())
    for letter, answer in read_answers().items():
        if answer_hash(key["salt"], letter, str(answer.get("bug"))) != key["letters"][letter]["bug"]:
            hint(
                f"{letter}.csv shows another bug than {answer.get('bug')}. Draw it beside correct.csv: it "
                f"lies farthest from the correct runs in the tags of {differs_most(letter)}/. Which of "
                "these have changed, and which are as they should be? A bug must explain both."
            )


@check("7c", "at least one tag of the evidence betrays the bug", seconds=20)
def evidence_is_right():
    key = json.loads((LOGS / "key.json").read_text())
    for letter, answer in read_answers().items():
        bug, evidence = str(answer.get("bug")), (answer.get("evidence") or [])[:3]
        if answer_hash(key["salt"], letter, bug) != key["letters"][letter]["bug"]:
            hint(f"{letter}: first find the right bug (7b); evidence is evidence of something")
        hashes = [answer_hash(key["salt"], letter, bug, str(tag)) for tag in evidence]
        if not set(hashes) & set(key["letters"][letter]["evidence"]):
            found = gaps(read_log(LOGS / f"{letter}.csv"), read_log(LOGS / "correct.csv"))
            inside = [tag for tag in evidence if max(found.get(tag, {"none": -1}).values()) < 0.25]
            if inside:
                hint(
                    f"{letter}: in {inside[0]} this log is not clearly outside the range of the correct "
                    "seeds, so it betrays nothing. Look for a tag in which all three seeds lie outside."
                )
            hint(
                f"{letter}: {', '.join(evidence)} differs, but as a consequence. Which tag shows the mistake "
                "where it is made: in what that piece of code computes itself?"
            )

"""Reading the logs of exercise 7, and comparing a letter's with the correct script's."""

import csv
import hashlib

import numpy as np


def answer_hash(salt, *answer):
    """A salted hash of an answer, so that the key is not readable."""
    return hashlib.pbkdf2_hmac("sha256", "|".join(answer).encode(), salt.encode(), 10_000).hex()[:32]


def read_log(path):
    """{tag: {seed: (steps, values)}} of a file in data/bugs."""
    log = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            points = log.setdefault(row["tag"], {}).setdefault(int(row["seed"]), [])
            points.append((int(row["step"]), float(row["value"])))
    return {tag: {k: np.array(v).T for k, v in seeds.items()} for tag, seeds in log.items()}


def statistics(points):
    """Numbers that sum up a curve: its first value, the mean of its last half, and its number of points."""
    values = points[1]
    return {"first": values[0], "last half": values[len(values) // 2 :].mean(), "points": len(values)}


def gaps(log, correct):
    """How far a letter's seeds lie outside of the correct seeds' range, {tag: {statistic: gap}}. The gap is
    between the range and the nearest seed, in widths of the range; negative if a seed lies within."""
    result = {}
    for tag in sorted(set(log) & set(correct)):
        ours = [statistics(points) for points in log[tag].values()]
        theirs = [statistics(points) for points in correct[tag].values()]
        result[tag] = {}
        for name in theirs[0]:
            x, y = (np.array([s[name] for s in group]) for group in (ours, theirs))
            gap = max(x.min() - y.max(), y.min() - x.max())
            result[tag][name] = gap / max(y.max() - y.min(), 1e-3 * np.abs(y).max(), 1e-9)
    return result

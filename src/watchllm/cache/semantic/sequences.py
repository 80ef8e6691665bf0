"""What two sequences of words have in common.

The longest common subsequence is found with bit vectors (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"),
so that a pair costs microseconds for each word of what differs.
"""

from collections.abc import Sequence


def trim(left: Sequence[str], right: Sequence[str]) -> tuple[int, int, int]:
    """Where the prompts begin to differ, and where they end to, in either."""
    start, shorter = 0, min(len(left), len(right))
    while start < shorter and left[start] == right[start]:
        start += 1
    end_a, end_b = len(left), len(right)
    while end_a > start and end_b > start and left[end_a - 1] == right[end_b - 1]:
        end_a -= 1
        end_b -= 1
    return start, end_a, end_b


def shared(left: Sequence[str], right: Sequence[str]) -> int:
    """How many tokens both have, order aside."""
    counts: dict[str, int] = {}
    for key in left:
        counts[key] = counts.get(key, 0) + 1
    same = 0
    for key in right:
        if counts.get(key, 0):
            counts[key] -= 1
            same += 1
    return same


def matches(left: Sequence[str], right: Sequence[str], start: int, end_a: int, end_b: int) -> list[tuple[int, int]]:
    """The pairs of places of a longest common subsequence of left[start:end_a] and right[start:end_b]."""
    size = end_a - start
    mask = (1 << size) - 1
    places: dict[str, int] = {}
    for at in range(size):
        key = left[start + at]
        places[key] = places.get(key, 0) | (1 << at)
    row = mask
    rows: list[int] = []
    for at in range(start, end_b):
        found = row & places.get(right[at], 0)
        row = ((row + found) | (row - found)) & mask
        rows.append(row)
    matches: list[tuple[int, int]] = []
    at_a, at_b = size - 1, len(rows) - 1
    while at_a >= 0 and at_b >= 0:
        if rows[at_b] >> at_a & 1:
            at_a -= 1
        elif at_b and not rows[at_b - 1] >> at_a & 1:
            at_b -= 1
        else:
            matches.append((start + at_a, start + at_b))
            at_a -= 1
            at_b -= 1
    matches.reverse()
    return matches

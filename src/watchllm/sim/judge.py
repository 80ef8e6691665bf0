"""What `sim/judge` says: whether the answer to one question will do for another, without fault where it knows the pair.

It reads the last user message, a JSON object with `question_a` and `question_b`. Of pairs that the process was given
labels for (`watchllm sim --judge-labels PAIRS.jsonl`) it says what the label says. Of any other pair it says yes where
both have the same words, whatever their case, order, punctuation and repetition, and no otherwise. Whatever else it is
asked, it says no.
"""

import re
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from watchllm.cache.normal_form import normalized

YES, NO = "yes", "no"
Labels: TypeAlias = Mapping[tuple[str, str], bool]
"""Whether the answer to the first question will do for the second."""


class _Pair(msgspec.Struct):
    question_a: str
    question_b: str


class _Line(msgspec.Struct):
    a: str
    b: str
    label: int


_WORD = re.compile(r"\w+")
_decode = msgspec.json.Decoder(_Pair).decode
_decode_line = msgspec.json.Decoder(_Line).decode


def judge(message: str, labels: Labels) -> str:
    """The verdict on what a message asks."""
    try:
        pair = _decode(message.encode())
    except (msgspec.DecodeError, UnicodeError):
        return NO
    known = labels.get((pair.question_a, pair.question_b))
    if known is None:
        known = _words(pair.question_a) == _words(pair.question_b)
    return YES if known else NO


def read_labels(lines: bytes) -> dict[tuple[str, str], bool]:
    """The labels of a file of JSON lines `{"a", "b", "label"}`, as `watchllm eval` takes it. Raises ValueError."""
    labels = {}
    for number, line in enumerate(lines.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            pair = _decode_line(line)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ValueError(f'line {number} is not {{"a", "b", "label"}}: {error}') from None
        labels[pair.a, pair.b] = pair.label == 1
    return labels


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall((normalized("NFKC", text) or text).casefold()))

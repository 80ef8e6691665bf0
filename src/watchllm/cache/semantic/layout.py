"""Lines and spaces, where they are content: in code and tables without a fence, in lists, where they are asked about.

A line that ends anywhere in prose says nothing. Prose is a line that does not start with blanks or a mark of a list,
has words enough or ends like a sentence, and has none of the marks of code.
"""

import re
from collections.abc import Collection
from typing import Final

from watchllm.cache.semantic.vocabulary import vocabulary

_FENCED: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_SPREAD: Final = re.compile(r"(?<=[^\s.!?:…])(?: {2,}|\t)[ \t]*(?=\S)")
"""Blanks between words; behind a sentence, two are a typist's habit."""
_WIDE: Final = re.compile(r"\S(?: {4,}| *\t\s*)\S")
_WIDEST: Final = 4
"""Blanks that are no slip any more."""
_SLIP: Final = re.compile(r"[\"'(¿¡]?[^\W\d_]{2,}[.,;:!?)\"']*|[aIyo]")
_CODE: Final = re.compile(r"[{}|\t]|;\s*$|\)\s*:?$|[=<>]=|\s=\s|^\s*(?:#|//|<\w|\|)|^[-+]{3,}")
_ITEM: Final = re.compile(r"([-*•+]|\d{1,3}[.)]|[a-zA-Z][.)])\s+")
_BULLETS: Final = frozenset("-*•+")
_ENDED: Final = (".", "!", "?", "…", ",", ";", ":", ")", '"', "。", "？", "！")
_WORDS: Final = 4
"""A line of prose has at least as many, unless it ends like a sentence."""
_BLANKS: Final = (" ", "\t")
_WRAPPED: Final = 48
"""Characters of the shortest line that an editor wraps."""
_WORD: Final = re.compile(r"[^\W\d_]+")


def laid_out(text: str, words: Collection[str]) -> tuple[str, ...]:
    """What of the text's lines and runs of blanks is content, in order; nothing for prose. `words` are its
    words in lower case."""
    text = text.strip("\n")
    if "\n" not in text and "  " not in text and "\t" not in text:
        return ()
    if "```" in text:
        text = _FENCED.sub(" ", text)
    known = vocabulary()
    about_spaces = not known.spaces.isdisjoint(words)
    asked = about_spaces or not known.layout.isdisjoint(words)
    if "\n" not in text and not asked and _WIDE.search(text) is None:
        return ()
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    indented = any(line[:1] in _BLANKS for line in lines if line)
    # One line alone may be a formula among sentences.
    is_code = sum(_CODE.search(line) is not None for line in lines) > (0 if indented else 1)
    content: list[str] = []
    for number, line in enumerate(lines):
        alone = not "".join(lines[max(0, number - 1) : number]) and not "".join(lines[number + 1 : number + 2])
        at_edge = not content or number == len(lines) - 1
        if not line or (at_edge and _is_courtesy(line)) or (number and _goes_on(lines[number - 1], line)):
            continue
        if (asked and number and not _asks(line)) or not (
            _is_prose_in_code(line, at_edge=at_edge) if is_code else _is_prose(line, alone=alone and not asked)
        ):
            content.append(_kept(line, exactly=is_code))
        else:
            content.extend(_spread(line, about_spaces=about_spaces or is_code))
    return tuple(content)


def _asks(line: str) -> bool:
    words = _WORD.findall(line.lower())
    return any(word in vocabulary().layout or word in vocabulary().spaces for word in words)


def _goes_on(before: str, line: str) -> bool:
    """Whether a long line was wrapped here."""
    return len(before) >= _WRAPPED and before[-1] not in ".!?:;" and line[0].isalnum() and not _ITEM.match(line)


def _is_courtesy(line: str) -> bool:
    words = _WORD.findall(line.lower())
    return bool(words) and vocabulary().courtesy.issuperset(words)


def _is_prose(line: str, *, alone: bool) -> bool:
    """`alone` = no other line is beside it."""
    if line[0] in _BLANKS or _ITEM.match(line):
        return alone and "\t" not in line and not _ITEM.match(line)
    words = _WORD.findall(line.lower())
    if alone or line.endswith(_ENDED) or len(words) >= _WORDS:
        return True
    return bool(words) and words[-1] in vocabulary().before_mark


def _is_prose_in_code(line: str, *, at_edge: bool) -> bool:
    if line[0] in _BLANKS or _ITEM.match(line) or _CODE.search(line):
        return False
    return (at_edge and line.endswith(_ENDED)) or len(_WORD.findall(line)) >= _WORDS


def _kept(line: str, *, exactly: bool) -> str:
    """A line with its indentation. Bullets say no more than lines that stand without them; 2. and b) do."""
    stripped = line.lstrip()
    indent = line[: len(line) - len(stripped)]
    match = _ITEM.match(stripped)
    if match is not None and not exactly:
        item = stripped[match.end() :]
        if match[1] not in _BULLETS:
            stripped = f"{match[1][:-1]}. {item}"
        elif item[:1].isalpha():
            stripped = item
    return indent + (stripped if exactly else stripped.casefold().rstrip(".,;"))


def _spread(line: str, *, about_spaces: bool) -> list[str]:
    """Each run of blanks with what stands on both sides of it: a slip between words, where blanks are not spoken of."""
    stripped = line.strip()
    found: list[str] = []
    for match in _SPREAD.finditer(stripped):
        before, after = stripped[: match.start()].split()[-1], stripped[match.end() :].split()[0]
        is_slip = len(match[0]) < _WIDEST and _SLIP.fullmatch(before) and _SLIP.fullmatch(after) and match[0][0] == " "
        if about_spaces or not is_slip:
            found.append(f"{before}{match[0]}{after}".casefold())
    return found

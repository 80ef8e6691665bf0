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
_CODE: Final = re.compile(r"[{}|\t]|;\s*$|\)\s*:?$|[=<>]=|\s=\s|^\s*(?:#|//|<\w|\|)|^[-+]{3,}")
_ITEM: Final = re.compile(r"([-*•+]|\d{1,3}[.)]|[a-zA-Z][.)])\s+")
_BULLETS: Final = frozenset("-*•+")
_ENDED: Final = (".", "!", "?", "…", ",", ";", ":", ")", '"', "。", "？", "！")
_WORDS: Final = 4
"""A line of prose has at least as many, unless it ends like a sentence."""
_WORD: Final = re.compile(r"[^\W\d_]+")


def laid_out(text: str, words: Collection[str]) -> tuple[str, ...]:
    """What of the text's lines and runs of blanks is content, in order; nothing for prose. `words` are its
    words in lower case."""
    text = text.strip("\n")
    if "\n" not in text and "  " not in text and "\t" not in text:
        return ()
    if "```" in text:
        text = _FENCED.sub(" ", text)
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    asked = not vocabulary().layout.isdisjoint(words)
    is_code = any(_CODE.search(line) for line in lines)
    content: list[str] = []
    for number, line in enumerate(lines):
        at_edge = number == 0 or number == len(lines) - 1
        if not line.strip():
            if asked and content:
                content.append("")
        elif (asked and number and len(lines) > 1) or not _is_prose(line, at_edge=at_edge, in_code=is_code):
            content.append(_kept(line, exactly=is_code))
        elif asked or is_code:
            content.extend(_spread(line))
    while content and not content[-1]:
        content.pop()
    return tuple(content)


def _is_prose(line: str, *, at_edge: bool, in_code: bool) -> bool:
    if line[0] in " \t" or _ITEM.match(line) or _CODE.search(line):
        # A list of one item, or the one line of a table, is laid out in no other way.
        return at_edge and not in_code and "\t" not in line and not _ITEM.match(line)
    if line.endswith(_ENDED) and not in_code:
        return True
    return at_edge or len(_WORD.findall(line)) >= _WORDS


def _kept(line: str, *, exactly: bool) -> str:
    """A line with its indentation; the marks of a list are all one."""
    stripped = line.lstrip()
    indent = line[: len(line) - len(stripped)]
    match = _ITEM.match(stripped)
    if match is not None and not exactly:
        mark = "-" if match[1] in _BULLETS else f"{match[1][:-1]}."
        stripped = f"{mark} {stripped[match.end() :]}"
    return indent + (stripped if exactly else stripped.casefold().rstrip(".,;"))


def _spread(line: str) -> list[str]:
    """Each run of blanks with what stands on both sides of it."""
    stripped = line.strip()
    found: list[str] = []
    for match in _SPREAD.finditer(stripped):
        before, after = stripped[: match.start()].split()[-1], stripped[match.end() :].split()[0]
        found.append(f"{before}{match[0]}{after}".casefold())
    return found

"""Marks that are not punctuation: brackets that say what belongs together, and marks that are spoken of.

Brackets are let go only around an aside in prose: words, with no logic in them or before and behind them. All others
are kept with the formula or call they stand in, blanks left out.
"""

import re
from bisect import bisect_left, bisect_right
from typing import Final

from watchllm.cache.semantic.marks import EMOTICON, EXACT_MARK
from watchllm.cache.semantic.unusual import Unusual
from watchllm.cache.semantic.vocabulary import vocabulary

_BRACKET: Final = re.compile(r"[()\[\]{}]")
_CLOSES: Final = {")": "(", "]": "[", "}": "{"}
_CHUNK: Final = re.compile(r"\S+")
_ENDS: Final = ".,;:!?…"
_EDGES: Final = ".,;:!?…()¿¡"
_ABBREVIATED: Final = re.compile(r"\b[^\W\d_]\.\s?[^\W\d_]\.")
_ASIDE: Final = re.compile(r"[^=+*/\\^<>|&$#@~_\[\]{}()\x00]+")
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_ITEM: Final = re.compile(r"\w{1,3}\)")
_AROUND: Final = re.compile(r"\s*([^\w\s])\s*")
_MARKS: Final = re.compile(r"""[.,;:!?¿¡'"(){}#_…-]+""")
_BARE: Final = re.compile(r"""(?<!\S)[.,;:!?¿¡'"(){}#_…-]+(?!\S)""")
_MARKED: Final = re.compile(r"""[.,;:!?'"()…-]""")
_JOINING: Final = frozenset(("and", "or", "und", "oder", "y", "o", "et", "ou"))
_DASHES: Final = frozenset(("-", "--", "…", "..."))
_NEAR: Final = 40
_LONE: Final = frozenset("'\"")


def notation(seen: Unusual, *, french: bool) -> tuple[str, ...]:
    """The brackets and marks of a prompt that must be the same, in order."""
    found: list[str] = []
    text = seen.text
    if _BRACKET.search(seen.odd) is not None:
        kept = [span for span in _bracketed(text) if not _is_aside(text, *span)]
        found = [_filled(formula, seen.exact) for formula in _formulas(text, kept)] if kept else []
    if _BARE.search(seen.odd) is not None:
        found.extend(_spoken_of(seen.chunks, french=french))
    if "?" in text[:-1] or "!" in text[:-1]:
        found.extend(_named_with_mark(seen.chunks))
    if seen.exact:
        found.extend(_quoted_or_not(seen))
    if not vocabulary().punctuation.isdisjoint(seen.words):
        found.extend(chunk for chunk in text.rstrip(_ENDS + " ").casefold().split() if _MARKED.search(chunk))
    return tuple(found)


def _formulas(text: str, bracketed: list[tuple[int, int]]) -> list[str]:
    """What stands around these brackets without a word between."""
    chunks = [match.span() for match in _CHUNK.finditer(text)]
    ends = [end for _, end in chunks]
    spans: list[tuple[int, int]] = []
    for start, end in bracketed:
        first, last = bisect_right(ends, start), bisect_left(ends, end)
        if spans and first <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
            continue
        after = spans[-1][1] if spans else -1
        while first - 1 > after and _is_formula(text[slice(*chunks[first - 1])]):
            first -= 1
        while last + 1 < len(chunks) and _is_formula(text[slice(*chunks[last + 1])]):
            last += 1
        spans.append((first, last))
    return [
        formula
        for first, last in spans
        if (formula := text[chunks[first][0] : chunks[last][1]].rstrip(_ENDS)) and not _is_mood(formula)
    ]


def _bracketed(text: str) -> list[tuple[int, int]]:
    """The outermost pairs of brackets, and brackets without a partner, as stretches of the text, in order."""
    open_at: list[int] = []
    found: list[tuple[int, int]] = []
    for match in _BRACKET.finditer(text):
        at, mark = match.start(), match[0]
        if mark not in _CLOSES:
            open_at.append(at)
        elif open_at and text[open_at[-1]] == _CLOSES[mark]:
            start = open_at.pop()
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, at + 1))
        else:
            found.append((at, at + 1))
    found.extend((at, at + 1) for at in open_at)
    return sorted(found)


def _is_aside(text: str, start: int, end: int) -> bool:
    """Whether what is in these brackets is said beside the rest, so that they might be commas."""
    if end - start < 2 or text[start] != "(":
        return False
    if (start and not text[start - 1].isspace()) or (end < len(text) and text[end] not in " \n\t" + _ENDS):
        return False
    content = _ABBREVIATED.sub("", text[start + 1 : end - 1])
    words = [word.lower() for word in _LETTERS.findall(content)]
    if (
        not words
        or _ASIDE.fullmatch(content) is None
        or all(word in vocabulary().small for word in words)
        or any(len(word) < 2 and word not in vocabulary().small for word in words)
    ):
        return False
    before, after = text[max(0, start - _NEAR) : start].split()[-1:], text[end : end + _NEAR].split()[:1]
    logic = vocabulary().logic
    return logic.isdisjoint(words) and not any(
        _is_operator(chunk) or chunk.lower().strip(_ENDS) in logic for chunk in (*before, *after)
    )


def _is_operator(chunk: str) -> bool:
    return not any(char.isalnum() or char in _ENDS or char in "\"'-" for char in chunk)


def _is_formula(chunk: str) -> bool:
    """Whether a chunk may belong to a formula: no word is in it, but of logic."""
    if chunk[-1] in _ENDS and len(chunk) > 1:
        chunk = chunk.rstrip(_ENDS)
    if chunk in vocabulary().small or chunk[:1] == EXACT_MARK:
        return False
    words = _LETTERS.findall(chunk)
    return bool(chunk) and all(len(word) < 2 or word.lower() in vocabulary().logic for word in words)


def _is_mood(formula: str) -> bool:
    return EMOTICON.fullmatch(formula) is not None or (_ITEM.fullmatch(formula) is not None)


def _filled(formula: str, exact: list[str]) -> str:
    """A formula without blanks around its marks, and with what was set aside of it."""
    formula = re.sub(rf"\s*{EXACT_MARK}(\d+)\s*", lambda match: f'"{exact[int(match[1])]}"', formula)
    return _AROUND.sub(r"\1", " ".join(formula.split()))


def _spoken_of(chunks: list[str], *, french: bool) -> list[str]:
    """Marks that stand alone and are no punctuation: of what is meant by ; or of the ! operator."""
    known = vocabulary()
    found: list[str] = []
    for at, chunk in enumerate(chunks):
        if _MARKS.fullmatch(chunk) is None or EMOTICON.fullmatch(chunk):
            continue
        if at and chunks[at - 1][0] == EXACT_MARK:
            continue  # Behind a quotation.
        before = chunks[at - 1].lower().lstrip("¿¡(\"'") if at else ""
        after = chunks[at + 1] if at + 1 < len(chunks) else ""
        if not after and len(chunk) == 1 and chunk in ".!?…" and before not in _JOINING:
            continue
        is_named = before in known.before_mark or after.lower().strip(_ENDS) in known.after_mark
        is_named = is_named or (chunk == ";" and bool(after))
        if chunk in _DASHES or (chunk == "," and before in _JOINING):
            is_named = is_named and before in known.before_mark and after.lower().strip(_ENDS) in known.after_mark
        if (is_named and not (french and after[:1].isupper())) or not _LONE.isdisjoint(chunk):
            found.append(chunk if after or len(chunk) == 1 else chunk.rstrip(".!?") or chunk)
    return found


def _named_with_mark(chunks: list[str]) -> list[str]:
    """Names of code that end in a mark: what does save! do, what does int? mean."""
    calls = vocabulary().calls
    return [
        chunk
        for before, chunk, after in zip(["", *chunks], chunks, chunks[1:], strict=False)
        if chunk[-1] in "?!"
        and chunk[0].isalpha()
        and after[:1].islower()
        and (before.lower() in calls or after.lower().strip(_ENDS) in calls)
    ]


def _quoted_or_not(seen: Unusual) -> list[str]:
    """Words that stand in quotation marks and without them, in order: is it "dog" or dog?"""
    small = {content.casefold() for content in seen.exact}
    plain = [chunk.strip(_EDGES).casefold() for chunk in seen.chunks]
    if small.isdisjoint(plain):
        return []
    return [
        f'"{seen.exact[int(chunk[1:])].casefold()}"' if chunk[0] == EXACT_MARK else word
        for chunk, word in zip(seen.chunks, plain, strict=True)
        if (chunk[0] == EXACT_MARK and chunk[1:].isdecimal() and int(chunk[1:]) < len(seen.exact)) or word in small
    ]

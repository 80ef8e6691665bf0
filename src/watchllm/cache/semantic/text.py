"""A prompt's text, read: what must be the same to the letter set aside, the rest cut into words; and its language."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

from watchllm.cache.normal_form import normalized
from watchllm.cache.semantic.lexicon import lexicon, markers
from watchllm.cache.semantic.marks import BREAK, COLON, COMMA, EMOJI, EMOTICON, EXACT_MARK
from watchllm.cache.semantic.signs import (
    PRIME,
    is_asked_about,
    is_factorial,
    is_formula,
    is_minus,
    primes,
    spelled_out,
)

MAX_CHARACTERS: Final = 8_192
"""Longer prompts are not compared: the work per pair is bounded, and so is the share that an embedder reads."""


MAX_TOKENS: Final = 512
"""The same for words, code and payload counted as one."""

_FOREIGN: Final = re.compile("[\u0250-\U0010ffff]")
_OFTEN_MET: Final = 24
"""Characters of a chunk that is remembered."""
_MOST_SEARCHED: Final = 256
_QUOTES: Final = str.maketrans(
    {"’": "'", "‘": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "–": "-", "—": "-", "…": "...",
     "\u00a0": " ", "\u202f": " ", "\u2044": "/", PRIME: "'"}
)  # fmt: skip
_FENCE: Final = re.compile(r"```(?:[\w+#-]*\n)?(.*?)(?:```|\Z)", re.DOTALL)
_INLINE: Final = re.compile(r"`([^`\n]{1,400})`")
_QUOTED: Final = re.compile(r'"([^"]{1,2000})"|(?<![\w"])\'([^\'\n]{1,400})\'(?!\w)')
_LONG_EMOTICON: Final = 6
_INTERPRETED: Final = frozenset("$\\")
_CHOICE: Final = re.compile(r"(?<!\S)\S+ \? [^?:\n]{1,80} : \S+")
"""a ? b : c, where no mark is punctuation. Looked for from where words begin only: each is gone through once."""
_COLON: Final = re.compile(r":\s+")
_PAYLOAD_AFTER: Final = 18
_EDGE_BEFORE: Final = "(\"'¿¡"
_EDGE_AFTER: Final = ".,;:!?)\"'…"
_ENDS: Final = frozenset((BREAK, COMMA, COLON))
_RULES: Final = frozenset("-#_")
"""Alone they draw lines and mark items."""
_COUNTED: Final = re.compile(r"\d+(?:-[^\W\d_]{2,})+")
"""10-year-old, 24-hour."""
_WITH_SLASH: Final = frozenset(("km/h", "mbit/s", "gbit/s", "w/", "w/o", "b/c"))


class Text(NamedTuple):
    """`words` in order: as written, with `.` and `,` where sentences and clauses end, and `\\0n` for `exact[n]`."""

    words: list[str]
    exact: list[str]
    language: str


def read(prompt: str) -> Text | None:
    """Read a prompt; None if it is longer than is read, in `MAX_CHARACTERS`, `MAX_TOKENS` or marks on one letter."""
    if len(prompt) > MAX_CHARACTERS:
        return None
    text = prompt
    if not prompt.isascii():
        folded = normalized("NFKC", spelled_out(prompt))
        if folded is None:
            return None
        text = folded.translate(_QUOTES)
    if len(text) > 2 * MAX_CHARACTERS:
        return None  # There are letters that are eighteen when they are normalized.
    if not text.replace("\n", " ").replace("\t", " ").isprintable():
        text = "".join(char if char.isprintable() or char in "\n\t" else _space(char) for char in text)
    if not text.isascii():
        text = EMOJI.sub(r" \g<0> ", text, count=MAX_TOKENS)
    exact: list[str] = []
    text = _set_aside(text, exact)
    words = _cut(text, exact)
    if len(words) > MAX_TOKENS:
        return None
    return Text(words, exact, language_of(words, text))


def language_of(words: list[str], text: str = "") -> str:
    """The language by its small words: `en`, `de`, `es`, `fr`; another script's name; "" when nothing tells."""
    scores: dict[str, float] = {}
    known = markers()
    for word in words:
        for language in (found := known.get(word, ())):
            scores[language] = scores.get(language, 0.0) + 1.0 / len(found)
    if scores:
        best = max(scores, key=scores.__getitem__)
        if sum(score >= scores[best] - 0.2 for score in scores.values()) == 1:
            return best
        return ""
    if not text.isascii():
        for match in islice(_FOREIGN.finditer(text), _MOST_SEARCHED):
            if (char := match[0]).isalpha():
                return f"script {unicodedata.name(char, 'unknown').partition(' ')[0].lower()}"
    return ""


def _space(char: str) -> str:
    """What a character that cannot be seen stands for: white space for a blank, nothing for the others."""
    return " " if char.isspace() else ""


def _set_aside(text: str, exact: list[str]) -> str:
    """Replace code, quotations and a payload by marks."""

    def keep(content: str) -> str:
        exact.append(content)
        return f" {EXACT_MARK}{len(exact) - 1} "

    def quoted(match: re.Match[str]) -> str:
        content = " ".join((match[1] or match[2] or "").split())
        if not _INTERPRETED.isdisjoint(content):
            return keep(match[0])  # In a shell the two kinds of quotation mark are not the same.
        # One word in quotation marks is a name; of a letter or more words, its case may be what is asked about.
        return keep(content[:1].lower() + content[1:] if " " not in content and len(content) > 1 else content)

    if "`" in text:
        text = _FENCE.sub(lambda match: keep(match[1].strip()), text)
        text = _INLINE.sub(lambda match: keep(" ".join(match[1].split())), text)
    if " ? " in text and " : " in text:
        text = _CHOICE.sub(lambda match: keep(match[0]), text)
    colon = _COLON.search(text)
    if colon is not None:
        before, after = text[: colon.start()], text[colon.end() :]
        first = before.lower().split()
        task = lexicon(language_of(first) or "en").payload
        if len(first) <= _PAYLOAD_AFTER and not task.isdisjoint(first) and EXACT_MARK not in after and '"' not in after:
            return f"{before} {keep(after.strip())}" if after.strip() else before
    if '"' in text or "'" in text:
        text = _QUOTED.sub(quoted, text)
    return text


def _cut(text: str, exact: list[str]) -> list[str]:
    words: list[str] = []
    chunks = text.split()
    in_formula = is_formula(chunks)
    for at, chunk in enumerate(chunks):
        if len(words) > MAX_TOKENS:
            break
        if chunk.isalpha() or chunk[0] == EXACT_MARK:
            words.append(chunk)
            continue
        if in_formula or len(chunk) > _OFTEN_MET:
            found: Sequence[str] = _cut_chunk(chunk, in_formula=in_formula)
        else:
            found = _pieces(chunk)
        if not found or found[0] in _ENDS:
            # Nothing but punctuation.
            before, after = chunks[at - 1] if at else "", chunks[at + 1] if at + 1 < len(chunks) else ""
            if is_asked_about(chunk, before, after):
                exact.append(chunk)
                found = (f"{EXACT_MARK}{len(exact) - 1}",)
            elif chunk == "-" and is_minus(before, after):
                found = (chunk,)
        words.extend(found)
    return words


@lru_cache(maxsize=8_192)
def _pieces(chunk: str) -> tuple[str, ...]:
    """The words of a chunk; words with a comma behind them are met again and again."""
    return tuple(_cut_chunk(chunk))


def _cut_chunk(chunk: str, *, in_formula: bool = False) -> list[str]:
    """Cut what stands between blanks. Only punctuation is dropped: what might be an operator or a bracket of an
    interval stays a word of its own, and in a formula every bracket does.
    """
    words: list[str] = []
    if len(chunk) < _LONG_EMOTICON and EMOTICON.fullmatch(chunk):
        return [chunk]
    if chunk[0] == "[" and len(chunk) > 1:
        words.append("[")
        chunk = chunk[1:]
    core = chunk.lstrip(_EDGE_BEFORE)
    head = chunk[: len(chunk) - len(core)]
    stripped = core.rstrip(_EDGE_AFTER)
    if len(stripped) > 2 and stripped[0] == stripped[-1] == "*":
        stripped = stripped.strip("*") or stripped  # Emphasis in Markdown.
    tail = core[core.find(stripped) + len(stripped) :] if stripped else core
    bracket = stripped.endswith("]") and len(stripped) > 1 and "[" not in stripped
    if bracket:
        stripped = stripped[:-1].rstrip(_EDGE_AFTER)
    if in_formula:
        words.extend("(" * head.count("("))
    if stripped:
        _cut_core(stripped, words)
        if "'" not in head and '"' not in head:
            words.extend(PRIME * primes(stripped, tail))
    if in_formula:
        words.extend(")" * tail.count(")"))
    if bracket:
        words.append("]")
    if "!" in tail and stripped and is_factorial(stripped, tail):
        words.append("!")
    if "." in tail or "!" in tail or "?" in tail:
        words.append(BREAK)
    elif ":" in tail:
        words.append(COLON)
    elif "," in tail or ";" in tail:
        words.append(COMMA)
    return words


def _cut_core(core: str, words: list[str]) -> None:
    if core.isalpha():
        words.append(core)
    elif set(core) <= _RULES:
        return
    elif "-" in core and core[0] != "-" and core.replace("-", "").isalpha():
        words.extend(part for part in core.split("-") if part)
    elif core[0].isdigit() and _COUNTED.fullmatch(core):
        words.extend(core.split("-"))
    elif "/" in core and core.replace("/", "").isalpha() and core.lower() not in _WITH_SLASH:
        for number, part in enumerate(core.split("/")):
            words.extend(("/", part) if number else (part,))
        words[:] = [word for word in words if word]
    else:
        words.append(core)

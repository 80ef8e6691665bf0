"""A prompt's text, read: what must be the same to the letter set aside, the rest cut into words; and its language."""

import re
import unicodedata
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

from watchllm.cache.semantic.characters import normal
from watchllm.cache.semantic.lexicon import lexicon, markers
from watchllm.cache.semantic.marks import BREAK, COLON, COMMA, EMOJI, EMOTICON, EXACT_MARK
from watchllm.cache.semantic.signs import FACTORIAL, MINUS, PRIME, is_factorial, is_minus, primes

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
_GUILLEMETS: Final = re.compile(r"(?<=[«‹])\s+|\s+(?=[»›])")
"""Blanks that belong to the marks."""
_AREA: Final = re.compile(r"(\d\s?|\b(?:in|to|into|per|of|a|the|en|por|pro)\s)((?:[kcmd]?m|ft|yd|mi))\^([23])\b")
_FENCE: Final = re.compile(r"```(?:[\w+#-]*\n)?(.*?)(?:```|\Z)", re.DOTALL)
_INLINE: Final = re.compile(r"`([^`\n]{1,400})`")
_QUOTED: Final = re.compile(r'"([^"]{1,2000})"|(?<![\w"])\'([^\'\n]{1,400})\'(?!\w)')
_LONG_EMOTICON: Final = 6
_INTERPRETED: Final = frozenset("$\\")
_CHOICE: Final = re.compile(r"(?<!\S)\S+ \? [^?:\n]{1,80} : \S+")
"""a ? b : c, where no mark is punctuation. Looked for from where words begin only: each is gone through once."""
_LETTERS: Final = {
    "de": frozenset("äöüßé"),
    "es": frozenset("áéíóúüñ"),
    "fr": frozenset("àâçéèêëîïôûùüÿœæ"),
}
"""Of those that English does not have, which a language has."""
_ACCENTED: Final = frozenset(chr(code) for code in range(0xDF, 0x250)) | frozenset(
    chr(code) for code in range(0x1E00, 0x1F00)
)
_COLON: Final = re.compile(r":\s+")
_PAYLOAD_AFTER: Final = 18
_EDGE_BEFORE: Final = "({\"'¿¡"
_EDGE_AFTER: Final = ".,;:!?)}\"'…"
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
    written: list[str]
    """`exact` in the letter case in which it stands."""
    rest: str
    """The text without what was set aside, which has its marks in it."""


def read(prompt: str) -> Text | None:
    """Read a prompt; None if it is longer than is read, in `MAX_CHARACTERS`, `MAX_TOKENS` or marks on one letter."""
    if len(prompt) > MAX_CHARACTERS:
        return None
    text = prompt
    if not prompt.isascii():
        compatible = normal(prompt)
        if compatible is None:
            return None
        text = _GUILLEMETS.sub("", compatible).translate(_QUOTES)
    if len(text) > 2 * MAX_CHARACTERS:
        return None  # There are letters that are eighteen when they are normalized.
    if not (text.isprintable() or text.replace("\n", " ").replace("\t", " ").isprintable()):
        text = "".join(char if char.isprintable() or char in "\n\t" else _space(char) for char in text)
    if not text.isascii():
        text = EMOJI.sub(r" \g<0> ", text, count=MAX_TOKENS)
    if "^" in text:
        text = _AREA.sub(r"\1\2\3", text)
    written: list[str] = []
    text = _set_aside(text, written)
    exact = [_named(content) for content in written]
    words = _cut(text)
    if len(words) > MAX_TOKENS:
        return None
    return Text(words, exact, language_of(words, text), written, text)


def language_of(words: list[str], text: str = "") -> str:
    """The language by its small words: `en`, `de`, `es`, `fr`; another script's name; "" when nothing tells."""
    scores: dict[str, float] = {}
    known = markers()
    for word in [word for word in words if word in known]:
        for language, weight in known[word]:
            scores[language] = scores.get(language, 0.0) + weight
    if "¿" in text or "¡" in text:
        return "es"
    if scores and not text.isascii():
        letters = frozenset(text.lower()) & _ACCENTED
        for language in tuple(scores):
            if language != "en":
                scores[language] = scores[language] + 0.5 if letters <= _LETTERS[language] and letters else 0.0
    if scores:
        best = max(scores, key=scores.__getitem__)
        if not scores[best]:
            return ""
        if len(scores) == 1:
            return best
        least = scores[best] - 0.2
        return best if len([score for score in scores.values() if score >= least]) == 1 else ""
    if not text.isascii():
        for match in islice(_FOREIGN.finditer(text), _MOST_SEARCHED):
            if (char := match[0]).isalpha():
                return f"script {unicodedata.name(char, 'unknown').partition(' ')[0].lower()}"
    return ""


def _named(content: str) -> str:
    """One word in quotation marks is often a name; of more words, letter case may be what is asked about."""
    return content[:1].lower() + content[1:] if content.isalpha() else content


def _space(char: str) -> str:
    """What a character that cannot be seen stands for: white space for a blank, nothing for the others."""
    return " " if char.isspace() else ""


def _set_aside(text: str, exact: list[str]) -> str:
    """Replace code, quotations and a payload by marks."""

    def keep(content: str) -> str:
        exact.append(content)
        return f" {EXACT_MARK}{len(exact) - 1} "

    def quoted(match: re.Match[str]) -> str:
        content = match[1] or match[2] or ""
        # In a shell the two kinds of quotation mark are not the same.
        return keep(content if _INTERPRETED.isdisjoint(content) else match[0])

    if "`" in text:
        text = _FENCE.sub(lambda match: keep(match[1].strip("\n").rstrip()), text)
        text = _INLINE.sub(lambda match: keep(match[1].strip()), text)
    if " ? " in text and " : " in text:
        text = _CHOICE.sub(lambda match: keep(match[0]), text)
    colon = _COLON.search(text) if ":" in text else None
    if colon is not None:
        before, after = text[: colon.start()], text[colon.end() :]
        first = before.lower().split()
        task = lexicon(language_of(first) or "en").payload
        if len(first) <= _PAYLOAD_AFTER and not task.isdisjoint(first) and EXACT_MARK not in after and '"' not in after:
            return f"{before} {keep(after.strip())}" if after.strip() else before
    if '"' in text or "'" in text:
        text = _QUOTED.sub(quoted, text)
    return text


def _cut(text: str) -> list[str]:
    words: list[str] = []
    chunks = text.split()
    for at, chunk in enumerate(chunks):
        if chunk.isalpha() or chunk[0] == EXACT_MARK:
            words.append(chunk)
        elif len(words) > MAX_TOKENS:
            break
        elif chunk == MINUS:
            if 0 < at < len(chunks) - 1 and is_minus(chunks[at - 1], chunks[at + 1]):
                words.append(chunk)
        else:
            words.extend(_pieces(chunk) if len(chunk) <= _OFTEN_MET else _cut_chunk(chunk))
    return words


@lru_cache(maxsize=8_192)
def _pieces(chunk: str) -> tuple[str, ...]:
    """The words of a chunk; words with a comma behind them are met again and again."""
    return tuple(_cut_chunk(chunk))


def _cut_chunk(chunk: str) -> list[str]:
    """Cut what stands between blanks. Only punctuation is dropped: what might be an operator or a bracket of an
    interval stays a word of its own.
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
    if stripped.endswith("s") and core[len(stripped) : len(stripped) + 1] == "'" and chunk[0] != "'":
        stripped += "'"  # The kings' brothers.
    tail = core[core.find(stripped) + len(stripped) :] if stripped else core
    bracket = stripped.endswith("]") and len(stripped) > 1 and "[" not in stripped
    if bracket:
        stripped = stripped[:-1].rstrip(_EDGE_AFTER)
    if stripped:
        _cut_core(stripped, words)
        if "'" not in head and '"' not in head:
            words.extend(PRIME * primes(stripped, tail))
    if bracket:
        words.append("]")
    if "!" in tail and stripped and is_factorial(stripped, tail):
        words.append(FACTORIAL)
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

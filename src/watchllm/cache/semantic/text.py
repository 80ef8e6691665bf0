"""A prompt's text, read: what must be the same to the letter set aside, the rest cut into words; and its language."""

import re
import unicodedata
from typing import Final, NamedTuple

from watchllm.cache.semantic.lexicon import lexicon, markers

MAX_CHARACTERS: Final = 8_192
"""Longer prompts are not compared: the work per pair is bounded, and so is the share that an embedder reads."""

EXACT_MARK: Final = "\x00"
BREAK: Final = "."
COMMA: Final = ","
COLON: Final = ":"

_QUOTES: Final = str.maketrans(
    {"’": "'", "‘": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "–": "-", "—": "-", "…": "...",
     "\u00a0": " ", "\u202f": " "}
)  # fmt: skip
_FENCE: Final = re.compile(r"```[^\n`]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_INLINE: Final = re.compile(r"`([^`\n]{1,400})`")
_QUOTED: Final = re.compile(r'"([^"]{1,2000})"|(?<![\w"])\'([^\'\n]{1,400})\'(?!\w)')
_COLON: Final = re.compile(r":\s+")
_PAYLOAD_AFTER: Final = 18
_EDGE_BEFORE: Final = "([{<\"'¿¡*_#>|"
_EDGE_AFTER: Final = ".,;:!?)]}>\"'*_|…"
_OPERATORS: Final = frozenset("+-*/=<>^&|~%@\\")


class Text(NamedTuple):
    """`words` in order: as written, with `.` and `,` where sentences and clauses end, and `\\0n` for `exact[n]`."""

    words: list[str]
    exact: list[str]
    language: str


def read(prompt: str) -> Text:
    """Read a prompt of at most `MAX_CHARACTERS`."""
    text = prompt if prompt.isascii() else unicodedata.normalize("NFKC", prompt).translate(_QUOTES)
    if not text.isprintable():
        text = "".join(char if char.isprintable() or char in "\n\t" else _space(char) for char in text)
    exact: list[str] = []
    text = _set_aside(text, exact)
    words = _cut(text)
    return Text(words, exact, language_of(words, text))


def language_of(words: list[str], text: str = "") -> str:
    """The language by its small words: `en`, `de`, `es`, `fr`; another script's name; "" when nothing tells."""
    scores: dict[str, float] = {}
    known = markers()
    for word in words:
        for language in (found := known.get(word if word.islower() else word.lower(), ())):
            scores[language] = scores.get(language, 0.0) + 1.0 / len(found)
    if scores:
        best = max(scores, key=scores.__getitem__)
        if sum(score >= scores[best] - 0.2 for score in scores.values()) == 1:
            return best
        return ""
    if not text.isascii():
        for char in text:
            if char.isalpha() and char > "ɏ":
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
        # One word in quotation marks is a name; of more words, letter case may be what is asked about.
        return keep(content[:1].lower() + content[1:] if " " not in content else content)

    if "`" in text:
        text = _FENCE.sub(lambda match: keep(match[1].strip()), text)
        text = _INLINE.sub(lambda match: keep(" ".join(match[1].split())), text)
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


def _cut(text: str) -> list[str]:
    words: list[str] = []
    for chunk in text.split():
        if chunk.isalpha():
            words.append(chunk)
            continue
        if chunk[0] == EXACT_MARK:
            words.append(chunk)
            continue
        core = chunk.lstrip(_EDGE_BEFORE)
        stripped = core.rstrip(_EDGE_AFTER)
        if not stripped:
            if chunk not in ("...", "-", "--"):
                words.append(
                    chunk if not set(chunk) <= set(".,;:!?\"'()[]") else BREAK if set(chunk) & set(".!?") else COMMA
                )
            continue
        tail = core[len(stripped) :]
        if "-" in stripped and not stripped.startswith("-") and stripped.replace("-", "").isalpha():
            words.extend(part for part in stripped.split("-") if part)
        elif (
            "/" in stripped
            and stripped.replace("/", "").isalpha()
            and stripped.lower() not in ("km/h", "mbit/s", "gbit/s", "w/", "w/o", "b/c")
        ):
            for number, part in enumerate(stripped.split("/")):
                words.extend(("/", part) if number else (part,))
        elif len(stripped) == 1 and stripped in _OPERATORS:
            if stripped != "-":
                words.append(stripped)
        else:
            words.append(stripped)
        if tail:
            if "." in tail or "!" in tail or "?" in tail:
                words.append(BREAK)
            elif ":" in tail:
                words.append(COLON)
            elif "," in tail or ";" in tail:
                words.append(COMMA)
    return words

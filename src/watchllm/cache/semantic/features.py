"""What is kept of a prompt to decide about it later: `features` is computed once, when an answer is stored."""

import hashlib
import re
from typing import Final

import msgspec

from watchllm.cache.semantic import lexicon as words_of
from watchllm.cache.semantic.lexicon import (
    BASE,
    EMOTE,
    EXACT,
    IDENTIFIER,
    NAME,
    NUMBER,
    PAST,
    QUESTION,
    SYMBOL,
    TIME,
    WORD,
    Lexicon,
    fold,
)
from watchllm.cache.semantic.marks import BREAK, COLON, COMMA, EXACT_MARK
from watchllm.cache.semantic.quantities import quantity, starts
from watchllm.cache.semantic.rewriting import Token, rewrite
from watchllm.cache.semantic.text import MAX_CHARACTERS, Text, is_emote, read

MAX_TOKENS: Final = 512
_BITS: Final = re.compile(r"\d*[KMGT]b")
"""Mb is not MB: one of the few cases where letter case is meaning."""
_PUNCTUATION: Final = frozenset((BREAK, COMMA, COLON))
_PAST_MARKS: Final = frozenset(("was", "were", "did", "had"))
_PRESENT_MARKS: Final = frozenset(("is", "are", "am", "be", "been", "being", "get", "gets", "getting"))
_SPELLED: Final = frozenset((WORD, NAME, words_of.MODIFIER, TIME))
_CONTRACTED: Final = {"'ve": "have", "'re": "are", "'ll": "will", "n't": "not"}
_HAD: Final = frozenset(("better", "already", "never", "just", "been", "always"))
"""Words before which 'd is had."""
_HOWTO: Final = "howto"
_AIMS: Final = (("must",), ("want", "to"), ("would", "like", "to"), ("am", "trying", "to"), ("wish", "to"), ("wanted", "to"))
_IT: Final = frozenset(
    ((), *((verb, it) for verb in ("do", "achieve", "accomplish") for it in ("it", "this", "that", "so")), ("proceed",))
)
_VERB_FIRST: Final = frozenset(
    ("is", "are", "am", "do", "does", "did", "was", "were", "can", "could", "should", "would", "will", "must", "may")
)


class Features(msgspec.Struct, frozen=True, array_like=True):
    """A prompt as the engine sees it. Texts longer than it reads have `too_long` and nothing else."""

    language: str
    keys: tuple[str, ...]
    """What each token means: equal keys answer for each other."""
    surfaces: tuple[str, ...]
    """What was written for each key, in lower case."""
    kinds: bytes
    """One of the lexicon's kinds a token."""
    starts: tuple[int, ...]
    """Where sentences start, as indexes into `keys`."""
    quantities: tuple[str, ...]
    """Numbers, amounts, dates, in order of their spelling."""
    exact: tuple[str, ...]
    """Code, quotations and payload, to the letter, in order."""
    identifiers: tuple[str, ...]
    formats: tuple[str, ...]
    """The asked-for forms of the answer."""
    question: str
    """The kind of the first question: how, why, yes/no… or "" for a statement or a command."""
    past: bool
    negations: int
    relative_time: bool
    cased: tuple[str, ...]
    """Words that mean something else when written with a capital, as they were written; none when nothing in the prompt
    has a capital, as quick typists do."""
    too_long: bool = False
    plain: bytes = b""
    """A digest of the words without their apostrophes and punctuation: the same for its, it's and its'."""
    letters: bool = False
    """Whether the prompt is about letters, so that spelling is meaning."""


TOO_LONG: Final = Features("", (), (), b"", (), (), (), (), (), "", False, 0, False, (), too_long=True)


def features(prompt: str) -> Features:
    """Compute what `decide` compares; bounded by `MAX_CHARACTERS` and `MAX_TOKENS`, past which nothing is compared."""
    if len(prompt) > MAX_CHARACTERS:
        return TOO_LONG
    text = read(prompt)
    if len(text.words) > MAX_TOKENS:
        return TOO_LONG
    known = words_of.lexicon(text.language or "en")
    spelled, capitals = _expand(text, known)
    spelled, formats = _formats(spelled, known)
    tokens, cased = _tokens(spelled, capitals, text, known)
    past = _past(tokens)
    question = _question(tokens, prompt)
    tokens = rewrite(tokens, known)
    if tokens and tokens[0].key == "define":
        question = "define"
    return _kept(tokens, text, known, formats=formats, cased=cased, past=past, question=question)


def _plain_digest(text: Text) -> bytes:
    words = []
    for word in text.words:
        if word[0] == EXACT_MARK:
            words.append(f"{EXACT_MARK}{text.exact[int(word[1:])]}{EXACT_MARK}")
        elif word not in _PUNCTUATION:
            words.append(word if _keeps_case(word) else word.lower().replace("'", ""))
    return hashlib.blake2b(" ".join(words).encode(errors="surrogatepass"), digest_size=16).digest()


def _keeps_case(word: str) -> bool:
    """Whether letter case is meaning: in -k and -K, in MB and Mb."""
    return word[0] == "-" or _BITS.fullmatch(word) is not None


def _kept(
    tokens: list[Token],
    text: Text,
    known: Lexicon,
    *,
    formats: tuple[str, ...],
    cased: tuple[str, ...],
    past: bool,
    question: str,
) -> Features:
    keys: list[str] = []
    surfaces: list[str] = []
    kinds = bytearray()
    sentence_starts = [0]
    for token in tokens:
        if token.surface in (BREAK, COLON):
            if sentence_starts[-1] != len(keys):
                sentence_starts.append(len(keys))
        elif token.key:
            keys.append(token.key)
            surfaces.append(token.surface)
            kinds.append(token.kind)
    letters = not known.letters.isdisjoint(surfaces)
    if letters:
        keys = [surface if kind in _SPELLED else key for key, surface, kind in zip(keys, surfaces, kinds, strict=True)]
    pairs = list(zip(keys, kinds, strict=True))
    return Features(
        language=text.language,
        keys=tuple(keys),
        surfaces=tuple(surfaces),
        kinds=bytes(kinds),
        starts=tuple(sentence_starts),
        quantities=tuple(sorted(key for key, kind in pairs if kind == NUMBER)),
        exact=tuple(sorted(text.exact)),
        identifiers=tuple(sorted(key for key, kind in pairs if kind == IDENTIFIER)),
        formats=formats,
        question=question,
        past=past,
        negations=sum(kind == words_of.NEGATION for kind in kinds),
        relative_time=not known.relative_time.isdisjoint(keys),
        cased=cased,
        plain=_plain_digest(text),
        letters=letters,
    )


def _expand(text: Text, known: Lexicon) -> tuple[list[str], dict[str, bool]]:
    """Lower case, contractions and phrases spelled out; and which words have a capital inside a sentence."""
    lower: list[str] = []
    capitals: dict[str, bool] = {}
    first = True
    contractions = known.contractions
    for at, word in enumerate(text.words):
        if _BITS.fullmatch(word):
            word = f"{word}it"
        small = word if word.islower() or word[0] == "-" else word.lower()
        if not small.isascii():
            small = fold(small, known.language)
        if not word.islower():
            capitals[small] = not first or capitals.get(small, False) or (len(word) > 1 and word.isupper())
        said = contractions.get(small)
        if said is not None and small.endswith("'d") and _following(text.words, at) in _HAD:
            said = (small[:-2], "had")
        if said is not None:
            lower.extend(said)
        elif len(small) > 3 and small[-3:] in _CONTRACTED:
            lower.extend((small[:-3], _CONTRACTED[small[-3:]]))
        elif small.endswith("'s") and len(small) > 2:
            lower.extend((small[:-2], "'s"))
        elif small.endswith("s'"):
            lower.extend((small[:-1], "'s"))
        elif known.language == "fr" and len(small) > 2 and small[1] == "'":
            lower.extend((small[:2], small[2:]))
        else:
            lower.append(small if capitals.get(small) or not small.isalpha() else known.corrected(small))
        first = word in (BREAK, COLON)
    polite = known.polite
    said_plainly = known.courtesy.taken_off([word for word in lower if word not in polite])
    return _aim(_phrases(said_plainly, known)), capitals


def _aim(words: list[str]) -> list[str]:
    """I must reset my password. How do I do that? → how to reset my password."""
    if _HOWTO not in words[3:] or words[0] not in ("i", "we"):
        return words
    at = words.index(_HOWTO)
    rest = words[at + 1 :]
    while rest and rest[-1] == BREAK:
        rest = rest[:-1]
    led = next((len(aim) for aim in _AIMS if tuple(words[1 : 1 + len(aim)]) == aim), 0)
    aim = words[1 + led : at - 1]
    if not led or not aim or words[at - 1] not in _PUNCTUATION or tuple(rest) not in _IT or BREAK in aim:
        return words
    return [_HOWTO, *aim, BREAK]


def _following(words: list[str], at: int) -> str:
    return words[at + 1].lower() if at + 1 < len(words) else ""


def _phrases(words: list[str], known: Lexicon) -> list[str]:
    """Replace known phrases, the longest first; twice, because one may show another ("please tell me how do I")."""
    table, leading = known.phrases, known.leading
    for _ in range(2):
        out: list[str] = []
        at, size, changed = 0, len(words), False
        while at < size:
            word = words[at]
            if word in leading and (not out or out[-1] in (BREAK, COLON)):
                at, changed = at + 1, True
                while at < size and words[at] == COMMA:
                    at += 1
                continue
            found = table.get(word)
            candidates = (*found.get(words[at + 1] if at + 1 < size else "", ()), *found.get("", ())) if found else ()
            for phrase, becomes in candidates:
                length = len(phrase)
                if length == 1 or tuple(words[at : at + length]) == phrase:
                    out.extend(becomes)
                    at, changed = at + length, True
                    break
            else:
                if word not in (COMMA, COLON) or (out and out[-1] not in (BREAK, COLON)):
                    out.append(word)
                at += 1
        words = out
        if not changed:
            break
    return words


def _formats(words: list[str], known: Lexicon) -> tuple[list[str], tuple[str, ...]]:
    """Take out asked-for forms that stand behind "as", "in" or "with": they may stand anywhere in a prompt."""
    if known.formats:
        found: list[str] = []
        for at in range(len(words) - 1, -1, -1):
            if words[at] not in known.format_marks:
                continue
            led = words[at] in ("as", "in", "with")
            start = at + 1 if led else at
            while start < len(words) and words[start] in ("a", "an", "valid", "the"):
                start += 1
            for length in (3, 2, 1):
                phrase = tuple(words[start : start + length])
                if len(phrase) == length and phrase in known.formats and (led or length > 1):
                    found.append(" ".join("one" if word == "single" else word for word in phrase))
                    del words[at : start + length]
                    break
        return words, tuple(sorted(found))
    return words, ()


def _tokens(
    words: list[str], capitals: dict[str, bool], text: Text, known: Lexicon
) -> tuple[list[Token], tuple[str, ...]]:
    tokens: list[Token] = []
    cased: list[str] = []
    at, size = 0, len(words)
    analyse, numbers = known.word, known.numbers
    while at < size:
        word = words[at]
        if word in (BREAK, COMMA, COLON):
            tokens.append(Token(word, "", SYMBOL, BASE))
        elif word[0] == EXACT_MARK:
            content = text.exact[int(word[1:])]
            # One word in quotation marks is often written without them.
            tokens.append(Token(content, content if content.isalpha() else f'"{content}', EXACT, BASE))
        elif (
            word in numbers or word in known.ordinals or not word.isalpha() or word in known.months or word[0] == "v"
        ) and starts(word, known):
            found = quantity(words, at, known)
            if found is not None:
                tokens.append(Token(" ".join(words[at : at + found[1]]), found[0], NUMBER, BASE))
                at += found[1]
                continue
            tokens.append(_plain(word, capitals, known, analyse(word)))
        elif word.isalpha():
            if capitals and word in known.cased:
                cased.append(word.upper() if capitals.get(word) else word)
            tokens.append(_plain(word, capitals, known, analyse(word)))
        elif is_emote(word):
            tokens.append(Token(word, word, EMOTE, BASE))
        elif word == "'s":
            tokens.append(Token(word, word, SYMBOL, BASE))
        elif word.replace(".", "").isalpha() and "." in word[:2]:
            tokens.append(Token(word, word.replace(".", ""), NAME, BASE))
        else:
            found_word = analyse(word)
            kind = (
                found_word.kind
                if found_word.key != word or known.is_known(word)
                else (IDENTIFIER if any(char.isalnum() for char in word) else SYMBOL)
            )
            tokens.append(Token(word, found_word.key, kind, BASE))
        at += 1
    return tokens, tuple(sorted(cased))


def _plain(word: str, capitals: dict[str, bool], known: Lexicon, found: words_of.Word) -> Token:
    key, kind, form = found
    if kind == WORD and key and capitals.get(word) and known.language != "de" and word not in known.known:
        # Written with a capital inside a sentence and not in the dictionary: a name, as far as can be told.
        kind = NAME
    return Token(word, key, kind, form)


def _past(tokens: list[Token]) -> bool:
    before = ""
    for surface, _, kind, form in tokens:
        if surface in _PAST_MARKS or (form == PAST and kind in (WORD, TIME) and before not in _PRESENT_MARKS):
            return True
        before = surface
    return False


def _question(tokens: list[Token], prompt: str) -> str:
    """The kind of the first question."""
    first = ""
    for surface, key, kind, _ in tokens:
        if kind == QUESTION:
            return key
        if not first and surface not in (BREAK, COMMA, COLON):
            first = surface
    if first in _VERB_FIRST:
        return "yes/no"
    return "?" if "?" in prompt else ""

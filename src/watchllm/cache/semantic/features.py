"""What is kept of a prompt to decide about it later: `features` is computed once, when an answer is stored."""

from itertools import pairwise
from operator import attrgetter
from typing import Final

import msgspec

from watchllm.cache.semantic import lexicon as words_of
from watchllm.cache.semantic.lexicon import (
    BASE,
    CONJUNCTION,
    EMOTE,
    EXACT,
    IDENTIFIER,
    MODAL,
    NAME,
    NUMBER,
    PAST,
    QUESTION,
    SYMBOL,
    TIME,
    WORD,
    Lexicon,
    Token,
)
from watchllm.cache.semantic.literal import NOTHING, Literal, literal
from watchllm.cache.semantic.marks import BREAK, CAPITAL, COLON, COMMA, EXACT_MARK, between, is_emote
from watchllm.cache.semantic.quantities import VERSION_WORDS, quantity, starts
from watchllm.cache.semantic.rewriting import asks_for_a_thing, rewrite
from watchllm.cache.semantic.spoken import Spoken, speak
from watchllm.cache.semantic.text import Text, read

_DEFAULT: Final = "en"
_UNKNOWN: Final = ""
"""The language of words with accents that no language's small words are among."""
_kind: Final = attrgetter("kind")
_PARTS: Final = (["of"], ["per"])
"""One sentence of instruction per heading is a part of the answer, not its form."""
_PAST_MARKS: Final = frozenset(("was", "were", "did", "had"))
_PRESENT_MARKS: Final = frozenset(("is", "are", "am", "do", "does"))
_TELLING: Final = _PRESENT_MARKS | _PAST_MARKS | {BREAK}
_PARTICIPLE_AFTER: Final = frozenset(("be", "been", "being", "get", "gets", "getting"))
_PUNCTUATION: Final = frozenset((BREAK, COMMA, COLON))
_GRAMMAR: Final = frozenset(("a", "an", "the", "is", "are", "am", "do", "does"))
_BEHIND_NAMED: Final = frozenset((BREAK, COMMA, COLON, "or", "and", "versus", "in", "here", "there", "instead", "mean"))
_FIXED: Final = frozenset((NUMBER, EXACT, QUESTION))
_TOLD_APART: Final = frozenset((WORD, words_of.MODIFIER))
_MEANING: Final = frozenset(("mean", "means", "meaning"))
_WHOLE: Final = ("sentence",)
"""Where this sentence is meant, it is what stands before, too."""
_THANKS: Final = frozenset(("please", "pls", "thanks", "thank", "you", BREAK, COMMA))
_NO_QUESTION: Final = ("", "says", "?")
_COPULAS: Final = frozenset(("is", "are", "was", "were"))
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
    """The kind of the first question: how, why, yes/no; "says" for a statement, "?" for what else is asked, else ""."""
    past: bool
    negations: int
    relative_time: bool
    cased: tuple[str, ...]
    """Words that mean something else when written with a capital, as they were written; none when nothing in the prompt
    has a capital, as quick typists do."""
    before: bytes = b""
    """What stood before each token and on it; see `marks`."""
    verbatim: tuple[str, ...] = ()
    """Words that may be others without their accents; of a prompt about words, what it says of them to the letter."""
    too_long: bool = False
    plain: bytes = b""
    """A digest of the words without their apostrophes and punctuation: the same for its, it's and its'."""
    letters: bool = False
    """Whether the prompt is about letters, so that spelling is meaning."""
    named: bool = False
    """Whether it asks what the thing is that its other words name: they alone ask as much."""
    literal: Literal = NOTHING


TOO_LONG: Final = Features("", (), (), b"", (), (), (), (), (), "", False, 0, False, (), too_long=True)


def features(prompt: str) -> Features:
    """Compute what `decide` compares; past the limits of `text`, nothing is."""
    text = read(prompt)
    if text is None:
        return TOO_LONG
    known = words_of.lexicon(text.language or (_DEFAULT if prompt.isascii() else _UNKNOWN))
    spoken = speak(text, known)
    spelled, formats = _formats(spoken.words, known)
    tokens, cased = _tokens(spelled, spoken, text, known)
    past = _past(tokens)
    question = _question(tokens, prompt)
    tokens = rewrite(
        tokens if known.names_words.isdisjoint(spelled) else _talked_about(tokens, known),
        known,
        asked=question not in _NO_QUESTION,
    )
    if tokens and tokens[0].key == "define":
        question = "define"
    named = known.language == "en" and asks_for_a_thing(tokens)
    return _kept(
        tokens,
        text,
        known,
        spoken,
        formats=formats,
        cased=cased,
        past=past,
        question=question,
        named=named,
        written=literal(prompt, text, known),
    )


def _kept(
    tokens: list[Token],
    text: Text,
    known: Lexicon,
    spoken: Spoken,
    *,
    formats: tuple[str, ...],
    cased: tuple[str, ...],
    past: bool,
    question: str,
    named: bool,
    written: Literal,
) -> Features:
    kept = [token for token in tokens if token.key]
    surfaces, keys, kinds = [token.surface for token in kept], [token.key for token in kept], bytes(map(_kind, kept))
    silent = [(at, token.surface) for at, token in enumerate(tokens) if not token.key]
    sentence_starts, before = between(silent, len(kept), known.marking)
    named_inside = spoken.capitals.items() if known.language != "de" else ()
    capitals = [word for word, is_inside in named_inside if is_inside]
    if capitals:
        before = bytes(
            mark | CAPITAL if word in capitals else mark for mark, word in zip(before, surfaces, strict=True)
        )
    said = _talks_of_words(spoken, text, known, defines=bool(keys) and keys[0] == "define")
    letters = said is not None
    if letters:
        spelled = zip(keys, surfaces, kinds, strict=True)
        keys = [key if kind in _FIXED else surface for key, surface, kind in spelled]
    else:
        _tell_apart(keys, surfaces, kinds)
    return Features(
        language=text.language,
        keys=tuple(keys),
        surfaces=tuple(surfaces),
        kinds=kinds,
        starts=sentence_starts,
        quantities=_of_kind(NUMBER, keys, kinds),
        exact=tuple(sorted(text.exact)),
        identifiers=_of_kind(IDENTIFIER, keys, kinds),
        formats=formats,
        question=question,
        past=past,
        negations=kinds.count(words_of.NEGATION),
        relative_time=not known.relative_time.isdisjoint(keys),
        cased=cased,
        before=before,
        verbatim=spoken.accented if said is None else (*spoken.marked, said),
        plain=spoken.plain,
        letters=letters,
        named=named,
        literal=written,
    )


def _of_kind(kind: int, keys: list[str], kinds: bytes) -> tuple[str, ...]:
    if kind not in kinds:
        return ()
    return tuple(sorted(key for key, its in zip(keys, kinds, strict=True) if its == kind))


def _talks_of_words(spoken: Spoken, text: Text, known: Lexicon, *, defines: bool) -> str | None:
    """What a prompt says behind the word by which it is seen to be about words, to the letter; None if it is not."""
    words = spoken.words
    said = []
    if not (known.letters_firsts.isdisjoint(words) or known.letters_seconds.isdisjoint(words)) or "howmany" in words:
        marking = known.marking
        said_of_words = known.letters_said
        said = [
            pair[1]
            for pair in pairwise([word for word in words if word not in marking])
            if pair in said_of_words or (pair[0] == "howmany" and len(pair[1]) == 1 and pair[1].isalpha())
        ]
    if not said and known.letters.isdisjoint(words):
        return "" if defines and not _MEANING.isdisjoint(text.words) else None
    written = [word.lower() for word in text.words]
    plain = [words_of.fold(word, known.language) for word in written]
    found = [at for at, word in enumerate(plain) if word in known.letters]
    found.extend(-1 if word in _WHOLE else plain.index(word) if word in plain else len(plain) for word in said)
    if found:
        return _behind(written, min(found))
    return "" if defines and not _MEANING.isdisjoint(written) else None


def _behind(written: list[str], at: int) -> str:
    end = len(written)
    while end > at + 1 and written[end - 1] in _THANKS:
        end -= 1
    return " ".join(word for word in written[at + 1 : end] if word[0] != EXACT_MARK)


def _tell_apart(keys: list[str], surfaces: list[str], kinds: bytes) -> None:
    """Where a prompt has two words that mostly say the same, it tells them apart: a child is not a kid."""
    if len(set(keys)) == len(keys):
        return
    seen: dict[str, str] = {}
    apart: set[str] = set()
    for key, surface, kind in zip(keys, surfaces, kinds, strict=True):
        if kind in _TOLD_APART and seen.setdefault(key, surface) != surface:
            apart.add(key)
    if apart:
        keys[:] = [surface if key in apart else key for key, surface in zip(keys, surfaces, strict=True)]


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
                if (
                    len(phrase) == length
                    and phrase in known.formats
                    and (led or length > 1)
                    and not _is_part(words, at, start + length)
                ):
                    found.append(" ".join("one" if word == "single" else word for word in phrase))
                    end = start + length
                    del words[at : end + (words[end : end + 1] == ["format"])]
                    break
        return words, tuple(sorted(found))
    return words, ()


def _is_part(words: list[str], at: int, end: int) -> bool:
    """Whether a phrase names a part of the answer, not its form: with one sentence of text per heading."""
    return words[at] != "as" and words[end : end + 1] in _PARTS


def _tokens(words: list[str], spoken: Spoken, text: Text, known: Lexicon) -> tuple[list[Token], tuple[str, ...]]:
    tokens: list[Token] = []
    cased: list[str] = []
    at, size = 0, len(words)
    capitals, spellings, simple = spoken.capitals, spoken.spellings, known.simple_tokens
    has_cased = not known.cased.isdisjoint(words)
    while at < size:
        word = words[at]
        token = simple.get(word)
        if token is None:
            token, taken = _token(words, at, text, known)
            at += taken
        else:
            at += 1
        if capitals and (has_cased or word in capitals or word in spellings):
            if token.kind == WORD and token.key and capitals.get(word) and _may_be_name(word, known):
                token = token._replace(kind=NAME)
            if word in known.cased and token.kind != NUMBER:
                cased.append(word.upper() if capitals.get(word) else word)
            elif word in spellings:
                cased.append(spellings[word])
        tokens.append(token)
    return tokens, tuple(sorted(cased))


def _talked_about(tokens: list[Token], known: Lexicon) -> list[Token]:
    """Small words that usually say nothing, where they are what is said of: what does "actually" mean, use "do"."""
    out: list[Token] = []
    kept = False
    for at, token in enumerate(tokens):
        following = tokens[at + 1].surface if at + 1 < len(tokens) else BREAK
        before = tokens[at - 1] if at else token
        beside_name = before.surface in known.named_after or following in known.named_before
        if not token.key and token.kind == WORD and at:
            kept = (beside_name or (kept and before.kind == CONJUNCTION)) and (
                token.surface not in _GRAMMAR or following in _BEHIND_NAMED
            )
            if kept:
                token = token._replace(key=token.surface)
        elif token.kind != CONJUNCTION:
            kept = False
        out.append(token)
    return out


def _may_be_name(word: str, known: Lexicon) -> bool:
    """Whether a word with a capital inside a sentence is a name, as far as can be told: no dictionary has it."""
    return word.isalpha() and known.language != "de" and word not in known.known


def _token(words: list[str], at: int, text: Text, known: Lexicon) -> tuple[Token, int]:
    """The token that starts at `words[at]`, and how many words it takes."""
    word = words[at]
    if word in _PUNCTUATION:
        return known.remember_token(Token(word, "", SYMBOL, BASE)), 1
    if word[0] == EXACT_MARK:
        content = text.exact[int(word[1:])]
        # One word in quotation marks is often written without them.
        return Token(content, content.lower() if content.isalpha() else f'"{content}', EXACT, BASE), 1
    if (
        word in known.numbers
        or word in known.ordinals
        or word in VERSION_WORDS
        or not word.isalpha()
        or word in known.months
        or word[0] == "v"
    ) and starts(word, known):
        found = quantity(words, at, known)
        if found is not None:
            return Token(" ".join(words[at : at + found[1]]), found[0], NUMBER, BASE), found[1]
        return Token(word, *known.word(word)), 1
    return known.remember_token(_word_token(word, known)), 1


def _word_token(word: str, known: Lexicon) -> Token:
    found = known.word(word)
    if word.isalpha():
        return Token(word, *found)
    if is_emote(word):
        return Token(word, word, EMOTE, BASE)
    if word == "'s":
        return Token(word, word, SYMBOL, BASE)
    if word[0] != "." and word.replace(".", "").isalpha() and "." in word[:2]:
        return Token(word, word.replace(".", ""), NAME, BASE)
    if found.key != word or known.is_known(word):
        return Token(word, found.key, found.kind, BASE)
    return Token(word, found.key, IDENTIFIER if any(char.isalnum() for char in word) else SYMBOL, BASE)


def _past(tokens: list[Token]) -> bool:
    """Whether a prompt speaks of the past: its auxiliaries tell, and its verbs where it has none."""
    before, told = "", False
    for surface, _, kind, form in tokens:
        if form == PAST:
            if surface in _PAST_MARKS:
                return True
            if not told and kind in (WORD, TIME) and before not in _PARTICIPLE_AFTER:
                return True
        elif surface in _TELLING or kind == MODAL:
            if surface in _PAST_MARKS:
                return True
            told = surface != BREAK  # Is my order delayed?
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
    if "?" in prompt:
        return "?"
    return "says" if any(token.surface in _COPULAS for token in tokens[1:]) else ""

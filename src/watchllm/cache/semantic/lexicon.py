"""What is known of a language's words: the tables of `words/*.toml`, and what a word is a form of.

A language without tables (`other`) has a lexicon that knows nothing: every word is its own key and only equal words are
equal. Nothing is guessed for it.
"""

import re
import tomllib
import unicodedata
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from watchllm.cache.semantic import tables as read
from watchllm.cache.semantic.courtesy import Courtesy
from watchllm.cache.semantic.dictionary import UNKNOWN, Words, english
from watchllm.cache.semantic.typos import is_misspelling, is_slip, is_small_word

WORD, NUMBER, NAME, IDENTIFIER, EXACT, NEGATION, QUANTIFIER, PREPOSITION = range(8)
QUESTION, PRONOUN, TIME, CONJUNCTION, MODAL, MODIFIER, SYMBOL, UNIT = range(8, 16)
EMOTE = 16
"""Kinds of token."""

BASE, PLURAL, GERUND, PAST = range(4)
"""Grammatical endings, as far as they matter: what a form adds to its base."""

LANGUAGES: Final = ("en", "de", "es", "fr")
_LISTS: Final = (
    # Later ones win: a word that is a quantifier and a modifier is a quantifier.
    ("modifier", MODIFIER),
    ("time", TIME),
    ("preposition", PREPOSITION),
    ("pronoun", PRONOUN),
    ("modal", MODAL),
    ("quantifier", QUANTIFIER),
    ("conjunction", CONJUNCTION),
    ("question", QUESTION),
    ("negation", NEGATION),
)
_SYNONYMS: Final = (("synonyms", ""), ("verbs", "verb"), ("adjectives", "adjective"), ("nouns", "noun"))
_REMEMBERED: Final = 20_000
_BRITISH: Final = (
    ("our", "or"), ("isation", "ization"), ("ise", "ize"), ("ising", "izing"), ("yse", "yze"), ("ysing", "yzing"),
    ("tre", "ter"), ("ogue", "og"), ("ence", "ense"), ("lled", "led"), ("lling", "ling"), ("ller", "ler"),
    ("mme", "m"), ("ettor", "etor"), ("aem", "em"), ("oed", "ed"), ("que", "ck"),
)  # fmt: skip
_SHORT: Final = 4
_ENDING: Final = 3
_LONGEST: Final = 24
_INFLECTED: Final = frozenset((WORD, MODIFIER, TIME, UNIT, MODAL))


class Word(NamedTuple):
    """A word's key (equal for words that answer for each other), kind, and grammatical form. `key` "" says nothing."""

    key: str
    kind: int
    form: int


class Token(NamedTuple):
    """What was written, what it means, its kind and grammatical form."""

    surface: str
    key: str
    kind: int
    form: int


class Said(NamedTuple):
    """A word as it stands in a prompt, read once: `spoken` with misspelt small words put right, `as_written` if its
    capital makes it a name, `plain` without apostrophes, `spelling` where letter case is meaning."""

    small: str
    spoken: tuple[str, ...]
    as_written: tuple[str, ...]
    plain: str
    capital: bool
    shouted: bool
    spelling: str


class Lexicon:
    """One language's tables, made for look-ups of single words and phrases."""

    def __init__(self, language: str, tables: dict[str, Any], words: Words) -> None:
        self.language = language
        self.known = words.known
        self.common = words.common
        self.contractions: dict[str, tuple[str, ...]] = {
            word: tuple(said.split()) for word, said in tables.get("contractions", {}).items()
        }
        self.leading = frozenset(tables.get("leading", "").split())
        self.optional = frozenset(tables.get("optional", "").split())
        self.named_after = frozenset(tables.get("named_after", "").split())
        self.named_before = frozenset(tables.get("named_before", "").split())
        self.names_words = self.named_after | self.named_before
        self.kept_after = frozenset(tables.get("kept_after", "").split())
        self.polite = frozenset(tables.get("polite", "").split())
        self.fronting = frozenset(tables.get("fronting", "").split())
        self.technology = frozenset(tables.get("technology", "").split())
        self.code_nouns = frozenset(tables.get("code_nouns", "").split())
        self.cased = frozenset(tables.get("cased", "").split())
        self.letters = frozenset(tables.get("letters", "").split())
        self.confused = frozenset(tuple(pair.split()) for pair in read.split(tables.get("confused", "")))
        self.letters_said = frozenset(tuple(pair.split()) for pair in read.split(tables.get("letters_said", "")))
        self.letters_firsts = frozenset(one for one, _ in self.letters_said)
        self.letters_seconds = frozenset(other for _, other in self.letters_said)
        self.speaking = frozenset(tables.get("speaking", "").split())
        self.payload = frozenset(tables.get("payload", "").split())
        self.relative_time = frozenset(tables.get("relative_time", "").split())
        self._invariant = frozenset(tables.get("invariant", "").split())
        self._proper = words.proper
        self._entries: dict[str, Word] = {}
        self._groups: dict[str, str] = {}
        self.simple_tokens: dict[str, Token] = {}
        """Tokens of words that say the same wherever they stand, as far as they were met."""
        self.said_words: dict[str, Said] = {}
        self.simple_words: dict[str, bool] = {}
        """Words that are said as they are written, whatever stands around them."""
        self._remembered: dict[str, Word] = {}
        self.parts: dict[str, str] = {}
        """Keys of synonyms that are only some part of speech."""
        self._forms: dict[str, tuple[str, int]] = {}
        self._read_words(tables)
        self.units = read.units(tables.get("units", ""))
        self.numbers = read.pairs(tables.get("numbers", ""))
        self.scales = read.pairs(tables.get("scales", ""))
        self.ordinals = read.pairs(tables.get("ordinals", ""))
        self.months = {
            name: number
            for number, names in enumerate(read.split(tables.get("months", "")), 1)
            for name in names.split()
        }
        edges = tables.get("edges", {}).get("phrases", "")
        self.edges = frozenset(tuple(phrase.split()) for phrase in read.split(edges))
        """Phrases that say nothing at the start and at the end of a clause."""
        self.phrases = read.phrases(
            tables.get("phrases", {}), [*read.requests(tables), *((edge, "") for edge in read.split(edges))]
        )
        self.noticed = {**{key: {} for key in (*self.leading, ",", ":")}, **self.phrases}
        """What `phrases` has for a word; nothing for others at which one has to look too."""
        alone = [word for word, seconds in self.phrases.items() if "" in seconds]
        self.noticed_anywhere = frozenset((*self.leading, ",", ":", *alone))
        self.courtesy = Courtesy(
            tables.get("courtesy", {}),
            frozenset(tables.get("request_verbs", "").split()),
            frozenset(tables.get("question", "").split()),
            self.polite,
        )
        self.formats = frozenset(tuple(phrase.split()) for phrase in read.split(tables.get("formats", "")))
        self.format_marks = frozenset(("as", "in", "with", *(phrase[0] for phrase in self.formats if len(phrase) > 1)))
        self.marking = read.marking(tables.get("indefinite", ""), tables.get("definite", ""))
        self.indefinite = len(read.split(tables.get("indefinite", "")))
        """What is noted at the word behind, of words that are none of their own: articles, "do", "is"."""
        ordered = tables.get("ordered", "").split()
        self.ordered = frozenset((*ordered, *(key for word in ordered if (key := self.word(word).key))))
        """Words, and keys of their other forms, by which the order of others is meaning."""
        self.between = frozenset(tables.get("between", "").split())
        self.comparing = frozenset(tables.get("comparing", "").split())
        self.commuting = frozenset(tables.get("commuting", "").split())
        self.request_verbs = frozenset(tables.get("request_verbs", "").split())
        self.verbs = frozenset(key for key, part in self.parts.items() if part == "verb")
        self.plain_verbs = frozenset(tables.get("plain_verbs", "").split())
        self.plain_heads = frozenset(tables.get("plain_heads", "").split())
        self.own_plurals = frozenset(tables.get("own_plurals", "").split())
        self.symmetric = frozenset(
            tuple(key for key in (self.word(word).key for word in phrase.split()) if key)
            for phrase in read.split(tables.get("symmetric", ""))
        )
        self.function_words = read.small_words(tables)
        self._small = (
            read.near(self.phrases, self.polite | self.function_words, self.contractions) if self.known else {}
        )
        self.antonyms = self._read_antonyms(tables.get("antonyms", ""))

    def word(self, word: str) -> Word:
        """What is known of a lower-case word. Forms of unknown words are not guessed."""
        found = self._remembered.get(word)
        if found is None:
            found = self._analyse(word)
            _remember(self._remembered, word, found)
        return found

    def remember_token(self, token: Token) -> Token:
        """Keep a token that is the same wherever its word stands."""
        if len(token.surface) <= _LONGEST:
            _remember(self.simple_tokens, token.surface, token)
        return token

    def remember_said(self, word: str, said: Said) -> Said:
        """Keep how a word is said."""
        if len(word) <= _LONGEST:
            _remember(self.said_words, word, said)
        return said

    def remember_simple(self, word: str) -> None:
        """Keep that a word is said as it is written."""
        if len(word) <= _LONGEST:
            _remember(self.simple_words, word, found=True)

    def lemma(self, word: str) -> tuple[str, int]:
        """The word that a lower-case one is a form of, synonyms apart, and the form."""
        word = self.american(word)
        base, form = (word, BASE) if word in self._invariant else self._forms.get(word) or self._base(word)
        return self._forms.get(base, (base, BASE))[0], form

    def is_known(self, word: str) -> bool:
        """Whether the word is in the dictionary or the tables, so that it is no misspelling of another."""
        return word in self.known or word in self._entries or word in self._proper or word in self.technology

    def is_common(self, word: str) -> bool:
        """Whether the word is one that many write."""
        return word in self.common or word in self._entries or word in self._proper or word in self.technology

    def corrected(self, word: str) -> str:
        """A misspelt word that phrases are made of, as it was meant; any other word as it is."""
        if len(word) < 3 or len(word) > _LONGEST or self.is_known(word) or word in self.units or word in self.months:
            return word
        near = {meant for form in (word, *read.shortened(word)) for meant in self._small.get(form, ())}
        meant: Collection[str] = [small for small in near if is_misspelling(word, small) or is_small_word(word, small)]
        if len(meant) > 1:
            meant = [small for small in meant if is_slip(word, small)] or self.function_words.intersection(meant)
        return next(iter(meant)) if len(meant) == 1 else word

    def opposite(self, one: str, other: str) -> bool:
        """Whether two keys exclude each other."""
        return (one, other) in self.antonyms or _negated(one, other) or _negated(other, one)

    def _analyse(self, word: str) -> Word:
        entry = self._entries.get(word)
        if entry is not None:
            return entry
        if word in self.technology:
            return Word(self._groups.get(word, word), NAME, BASE)
        if word in self._proper:
            return Word(word, NAME, BASE)
        word = self.american(word)
        entry = self._entries.get(word)
        if entry is not None:
            return entry
        base, form = self._base(word) if word not in self._invariant else (word, BASE)
        entry = self._entries.get(base)
        if entry is not None and entry.kind in _INFLECTED:
            return Word(entry.key, WORD if entry.kind == MODAL else entry.kind, form)
        return Word(base, WORD, form)

    def american(self, word: str) -> str:
        """The American spelling of a word that differs by its ending only, when the dictionary has it."""
        if self.language == "en" and _SHORT < len(word) <= _LONGEST:
            for british, american in _BRITISH:
                at = word.rfind(british)
                if british[:2] == "ll" and f"{word[:at]}ll" in self.known:
                    continue  # Filled is not filed.
                if at > 1 and len(word) - at - len(british) <= _ENDING:
                    other = f"{word[:at]}{american}{word[at + len(british) :]}"
                    if other in self.known:
                        return other
        return word

    def _base(self, word: str) -> tuple[str, int]:
        """The base of a regular English form, when the dictionary has it."""
        known = self.known
        if len(word) < 4 or not known:
            return word, BASE
        if word.endswith("ss"):
            return word, BASE  # A princess is not one of the princes.
        if word.endswith("s"):
            for cut, add in ((3, "y"), (2, ""), (1, "")):
                if (cut != 3 or word.endswith("ies")) and (cut != 2 or word.endswith("es")):
                    base = word[:-cut] + add
                    if cut == 2 and not base.endswith(("s", "x", "z", "ch", "sh", "o")):
                        continue
                    if base in known and len(base) > 2:
                        return base, PLURAL
            return word, BASE
        for ending, form in (("ing", GERUND), ("ied", PAST), ("ed", PAST)):
            if word.endswith(ending):
                stem = word[: -len(ending)]
                if ending == "ied":
                    return (stem + "y", form) if stem + "y" in known else (word, BASE)
                if len(stem) < 2:
                    return word, BASE
                doubled = len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "sl"
                for base in (stem[:-1],) if doubled else (stem, stem + "e", stem[:-1]):
                    if base in known and len(base) > 2 and (base != stem[:-1] or stem[-1] == stem[-2]):
                        return base, form
                return word, BASE
        return word, BASE

    def _read_words(self, tables: dict[str, Any]) -> None:
        entries, known = self._entries, self.known
        for base, forms in tables.get("irregular", {}).items():
            for form in forms.split():
                ending = GERUND if form.endswith("ing") else PLURAL if form.endswith("s") and base in known else PAST
                entries[form] = Word(base, WORD, ending)
        for base, forms in tables.get("plurals", {}).items():
            for form in forms.split():
                entries[form] = Word(base, WORD, PLURAL)
        self._forms.update((word, (entry.key, entry.form)) for word, entry in entries.items())
        for table, part in _SYNONYMS:
            for line in tables.get(table, "").splitlines():
                words = line.split()
                for word in words:
                    # A word of two senses stays in its first group: a word has one key.
                    entries.setdefault(word, Word(words[0], WORD, BASE))
                if words and part:
                    self.parts[words[0]] = part
        for forms_base, forms in (tables.get("irregular", {}) | tables.get("plurals", {})).items():
            if forms_base in entries and entries[forms_base].form == BASE:
                for form in forms.split():
                    entries[form] = Word(entries[forms_base].key, WORD, entries[form].form)
        for table, kind in _LISTS:
            for word in tables.get(table, "").split():
                before = entries.get(word)
                entries[word] = Word(before.key if before is not None else word, kind, BASE)
        for word, entry in entries.items():
            if entry.kind == WORD and entry.key in entries and entries[entry.key].kind == MODIFIER:
                entries[word] = entry._replace(kind=MODIFIER)
        for word in tables.get("empty", "").split():
            entries[word] = Word("", WORD, BASE)

    def _read_antonyms(self, lines: str) -> frozenset[tuple[str, str]]:
        pairs: set[tuple[str, str]] = set()
        for line in lines.split("\n"):
            left, _, right = line.partition("|")
            for one in left.split():
                for other in right.split():
                    a, b = self.word(one).key, self.word(other).key
                    pairs.update(((a, b), (b, a)))
        return frozenset(pairs)


@cache
def lexicon(language: str) -> Lexicon:
    """The lexicon of `en`, `de`, `es`, `fr`; of any other language one that knows nothing."""
    if language not in LANGUAGES:
        return Lexicon(language, {}, UNKNOWN)
    tables: dict[str, Any] = {}
    folder = files(__package__) / "words"
    for name in (f"{language}.toml", f"{language}_said.toml", f"{language}_groups.toml"):
        if (folder / name).is_file():
            tables |= tomllib.loads(fold((folder / name).read_text(encoding="utf-8"), language))
    return Lexicon(language, tables, english() if language == "en" else UNKNOWN)


@cache
def markers() -> dict[str, tuple[tuple[str, float], ...]]:
    """The words by which a language is known, in each letter case: the languages that have them, and how much each
    word speaks for each."""
    found: dict[str, tuple[str, ...]] = {}
    for language in LANGUAGES:
        text = (files(__package__) / "words" / f"{language}.toml").read_text(encoding="utf-8")
        tables = tomllib.loads(text)
        for word in {*tables["markers"].split(), *fold(tables["markers"], language).split()}:
            for written in {word, word.capitalize(), word.upper()}:
                found[written] = (*found.get(written, ()), language)
    return {
        word: tuple((language, (0.5 if word == "a" else 1.0) / len(languages)) for language in languages)
        for word, languages in found.items()
    }


_KEPT_ACCENTS: Final = {"es": frozenset(("él", "sí")), "fr": frozenset(("où", "à"))}
_GERMAN: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
_LIGATURES: Final = str.maketrans({"œ": "oe", "æ": "ae", "ß": "ss"})


def fold(text: str, language: str) -> str:
    """Lower-case text without the accents that quick typists leave out; German umlauts as ae, oe, ue. In a language
    without tables an accent makes another word."""
    if text.isascii() or language not in LANGUAGES:
        return text
    if language == "de":
        return text.translate(_GERMAN)
    kept = _KEPT_ACCENTS.get(language, frozenset())
    return "".join(part if part in kept or part.isascii() else _plain(part) for part in re.split(r"(\W+)", text))


def _plain(word: str) -> str:
    letters = (char if char == "ñ" else unicodedata.normalize("NFD", char)[0] for char in word.translate(_LIGATURES))
    return "".join(letters)


def _remember(memory: dict[str, Any], word: str, found: Any) -> None:
    """Bounded, however many words there are: those that are common are soon there again."""
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[word] = found


def _negated(one: str, other: str) -> bool:
    """Whether `one` is `other` with a prefix that negates it, as in unhappy."""
    return (
        len(other) > 3
        and one != other
        and one in (f"un{other}", f"in{other}", f"im{other}", f"ir{other}", f"non{other}", f"dis{other}")
    )

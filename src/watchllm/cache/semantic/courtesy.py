"""What people say around a question: greetings, thanks, excuses, "could you tell me". It is taken off the words of a
prompt, clause by clause, by a grammar that each language's tables hold (`[courtesy]`).
"""

import re
from typing import Any, Final

from watchllm.cache.semantic.marks import BREAK, COLON, COMMA, EXACT_MARK, is_emote

_ENDS: Final = frozenset((BREAK, COLON, COMMA))
_SENTENCES: Final = (BREAK, COLON)
_SEEN: Final = 24
"""Words at the start and at the end of a sentence among which courtesies are looked for."""
_TURNS: Final = 6
_SIGNATURE: Final = 5
"""Words behind "kind regards", and what stands between and behind them."""
_SUBJECT: Final = 7
_VERBS_OF_WORDS: Final = frozenset(
    ("say", "says", "spell", "translate", "pronounce", "word", "phrase", "mean", "means")
)
_TITLES: Final = frozenset(("good", "please", "dear", "excuse", "hope"))
_MEASURED: Final = frozenset(
    ("far", "long", "old", "big", "large", "tall", "high", "deep", "heavy", "fast", "hot", "much")
)
_ANYONE: Final = ("i", "one")
_STATES: Final = frozenset(("feel", "look", "am", "do", "was", "know", "did", "have", "had", "live", "work", "sound"))
_ME: Final = ("me", "us")


class Courtesy:
    """A language's grammar of courtesies.

    `heads` are words by which a clause is seen to be one, `words` what else may stand in it. `ask` (what leads to a
    question word), `request` (what leads to a verb that asks for something), `lead` and `trail` are regular
    expressions over words with one blank between them; `verbs` are those that ask for something.
    """

    def __init__(
        self, tables: dict[str, Any], verbs: frozenset[str], questions: frozenset[str], polite: frozenset[str]
    ) -> None:
        self._heads = frozenset(tables.get("heads", "").split())
        self._opening_heads = frozenset(tables.get("opening_heads", "").split())
        self._words = self._heads | self._opening_heads | frozenset(tables.get("words", "").split())
        self.words_of_title = self._heads | _TITLES | polite
        """Words that are a courtesy where they are not part of a title."""
        asked = "|".join(sorted((*questions, *tables.get("conditions", "").split())))
        wanted = "|".join(sorted(verbs))
        lead = [
            *(f"{ask} (?=(?:{asked}) )" for ask in _lines(tables, "ask")),
            *(f"{request} (?=(?:{wanted}) )" for request in _lines(tables, "request")),
            *(f"{words}(?<= )|{words} " for words in _lines(tables, "lead")),
        ]
        self._lead = re.compile("|".join(lead)) if lead else None
        trail = "|".join(_lines(tables, "trail"))
        self._trail = re.compile(f" (?:{trail}) $") if trail else None
        self._about = frozenset(tables.get("about", "").split())
        self._questions = questions
        self._auxiliaries = frozenset(tables.get("auxiliaries", "").split())
        self._copulas = frozenset(tables.get("copulas", "").split())
        self._subjects = frozenset(tables.get("subjects", "").split())
        self._made = verbs - frozenset(tables.get("told", "").split())
        self._conditions = frozenset(tables.get("conditions", "").split())
        self._signing = frozenset(tables.get("signing", "").split())
        self._starters = frozenset(tables.get("starters", "").split())
        self._enders = frozenset(tables.get("enders", "").split())

    def taken_off(self, words: list[str]) -> list[str]:
        """The words without courtesies; all of them when nothing would be left."""
        if not (self._heads.isdisjoint(words) and self._opening_heads.isdisjoint(words)):
            words = self._without_clauses(words)
        if self._lead is None:
            return words
        out: list[str] = []
        start = 0
        for at in (*[at for at, word in enumerate(words) if word in _SENTENCES], len(words)):
            if at > start:
                out.extend(self._of_sentence(words[start:at]))
            out.extend(words[at : at + 1])
            start = at + 1
        return out

    def _without_clauses(self, words: list[str]) -> list[str]:
        """Without clauses that are nothing but courtesy: "hope you are well", "thanks so much in advance"."""
        out: list[str] = []
        start = 0
        for at in (*[at for at, word in enumerate(words) if word in _ENDS], len(words)):
            clause = words[start:at]
            while clause and is_emote(clause[-1]):
                clause = clause[:-1]
            if (
                self._words.issuperset(clause)
                and (not self._heads.isdisjoint(clause) or not self._opening_heads.isdisjoint(clause[:2]))
                and not self._is_talked_about(words, start)
            ):
                if at < len(words) and words[at] == BREAK and out and out[-1] == COMMA:
                    out[-1] = BREAK
                if clause[-1] in self._signing and _is_signature(words[at:]):
                    return out
            else:
                out.extend(words[start : at + 1])
            start = at + 1
        return out

    def _is_talked_about(self, words: list[str], start: int) -> bool:
        """Whether a clause is what the one before it is about: say in Greek: thank you."""
        if not start or words[start - 1] == BREAK:
            return False
        if words[start - 1] == COLON:
            return True
        before = start - 1
        while before and words[before - 1] not in _ENDS:
            before -= 1
        return not _VERBS_OF_WORDS.isdisjoint(words[before:start])

    def _of_sentence(self, sentence: list[str]) -> list[str]:
        while len(sentence) > 1 and sentence[-1] == COMMA:
            sentence = sentence[:-1]
        for _ in range(_TURNS):
            while len(sentence) > 1 and sentence[0] in _ENDS:
                sentence = sentence[1:]
            if sentence[0] not in self._starters or self._lead is None:
                break
            match = self._lead.match(" ".join(sentence[:_SEEN]) + " ")
            if match is None or not match.end():
                break
            taken = match[0].count(" ")
            if taken >= len(sentence):
                return []
            sentence = sentence[taken:]
            if sentence[0] in self._conditions and len(sentence) > 1:
                return self._shortened(self._asked(sentence[1:]))
        return self._shortened(self._inverted(sentence))

    def _shortened(self, sentence: list[str]) -> list[str]:
        """Without the courtesies at the end, and without saying for whom something is to be made."""
        end = len(sentence)
        while end and is_emote(sentence[end - 1]):
            end -= 1
        if end == len(sentence):
            return self._plainly(sentence)
        return [*self._plainly(sentence[:end]), *sentence[end:]]

    def _plainly(self, sentence: list[str]) -> list[str]:
        if self._trail is not None and not self._enders.isdisjoint(sentence[-1:]):
            match = self._trail.search(" " + " ".join(sentence[-_SEEN:]) + " ")
            if match is not None and not any(word[0] == EXACT_MARK for word in match[0].split()):
                taken = len(match[0].split())
                if taken < len(sentence) and (
                    sentence[-taken] == COMMA
                    or (sentence[-taken - 1] not in self._about and _VERBS_OF_WORDS.isdisjoint(sentence[:-taken]))
                ):
                    sentence = sentence[:-taken]
        while len(sentence) > 1 and sentence[-1] == COMMA:
            sentence = sentence[:-1]
        if "some" in sentence[1:4]:
            at = sentence.index("some")
            if sentence[0] in self._made or (sentence[0] in self._questions and sentence[at - 1] in ("are", "is")):
                sentence = [*sentence[:at], *sentence[at + 1 :]]
        if sentence[:1] == ["translate"]:
            sentence = ["to" if word == "into" else word for word in sentence]
        if sentence and sentence[0] in self._made:
            if len(sentence) > 2 and sentence[1] in _ME:
                sentence = [sentence[0], *sentence[2:]]
            if len(sentence) > 3 and sentence[-1] in _ME and sentence[-2] == "for":
                sentence = sentence[:-2]
        return sentence

    def _asked(self, sentence: list[str]) -> list[str]:
        """What was asked with "tell me if", as a question: if dogs can swim → can dogs swim."""
        for at in range(1, min(len(sentence), _SUBJECT)):
            if sentence[at] in self._auxiliaries:
                return [sentence[at], *sentence[:at], *sentence[at + 1 :]]
        return sentence

    def _inverted(self, sentence: list[str]) -> list[str]:
        """What I should do → what should I do; what a fax is → what is a fax."""
        if len(sentence) > 3 and sentence[0] == "how" and sentence[1] in _MEASURED and sentence[-1] in self._copulas:
            return [*sentence[:2], sentence[-1], *sentence[2:-1]]
        if (
            len(sentence) > 2
            and sentence[0] == "how"
            and sentence[1] in _ANYONE
            and sentence[2] not in self._auxiliaries
        ):
            return sentence if sentence[2] in _STATES else ["howto", *sentence[2:]]
        if len(sentence) > 2 and sentence[0] in self._questions and sentence[-1] in self._copulas:
            return [sentence[0], sentence[-1], *sentence[1:-1]]
        if sentence[0] == "what" and sentence[-1] == "means":
            return [*sentence[:-1], "mean"]
        if (
            len(sentence) > 2
            and sentence[0] in self._questions
            and sentence[1] in self._subjects
            and sentence[2] in self._auxiliaries
        ):
            return [sentence[0], sentence[2], sentence[1], *sentence[3:]]
        return sentence


def _is_signature(behind: list[str]) -> bool:
    """Whether what stands behind "kind regards" is a name, if it is anything: behind a comma, and without a number."""
    while behind and behind[-1] == BREAK:
        behind = behind[:-1]
    return not behind or (
        len(behind) <= _SIGNATURE
        and behind[0] == COMMA
        and all(word.replace("-", "").isalpha() or word == COMMA for word in behind)
    )


def _lines(tables: dict[str, Any], name: str) -> list[str]:
    return [f"(?:{line.strip()})" for line in tables.get(name, "").splitlines() if line.strip()]

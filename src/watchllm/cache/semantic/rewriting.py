"""Sentence forms that say the same brought to one: possessives, relative clauses, the passive, embedded questions."""

from watchllm.cache.semantic.lexicon import (
    BASE,
    CONJUNCTION,
    EXACT,
    GERUND,
    IDENTIFIER,
    NAME,
    NEGATION,
    NUMBER,
    PAST,
    PREPOSITION,
    PRONOUN,
    QUANTIFIER,
    QUESTION,
    SYMBOL,
    WORD,
    Lexicon,
    Token,
)
from watchllm.cache.semantic.listing import Listed, is_free

_COPULAS = frozenset(("is", "are", "was", "were", "am"))
_AUXILIARIES = frozenset(("is", "are", "was", "were"))
_RELATIVE = frozenset(("who", "that", "which"))
_BE = frozenset(("is", "are", "was", "were", "be", "been", "being"))
_OWNERS = frozenset(("my", "your", "his", "her", "its", "our", "their"))
_DETERMINERS = frozenset(("the", "a", "an"))
_ENDS = frozenset((".", ",", ":"))
_OF = Token("of", "of", PREPOSITION, BASE)
_IN = Token("in", "in", PREPOSITION, BASE)
_BOUNDS = {"more": "atleast", "less": "atmost", "fewer": "atmost"}
_LISTABLE = frozenset((WORD, NAME, IDENTIFIER, EXACT))
_BY = "by"
_ALSO_PAST = {"used": "use", "left": "leave", "read": "read", "set": "set", "cut": "cut", "hit": "hit", "hurt": "hurt"}
"""Before "by" they are what was done, whatever they are elsewhere."""


def rewrite(tokens: list[Token], known: Lexicon, *, asked: bool) -> list[Token]:
    """Bring a prompt's tokens into the forms that are compared. Lists in every language, the rest in English only.

    `asked`: the prompt is a question.
    """
    surfaces = [token.surface for token in tokens]
    if "," in surfaces:
        tokens = _lists(tokens, known, asked=asked)
    if known.language == "fr":
        return _without_clitic(tokens)
    if known.language != "en":
        return tokens
    if _REWRITTEN.isdisjoint(surfaces) and known.technology.isdisjoint(surfaces):
        return tokens
    surfaces = [token.surface for token in tokens]
    if ":" in surfaces[1:3] and tokens[0].kind == NAME:
        tokens = [_IN, *tokens]
    if not known.technology.isdisjoint(surfaces):
        tokens = _written_in(tokens, known)
        surfaces = [token.surface for token in tokens]
    if "or" in surfaces:
        tokens = _bounds(tokens)
        surfaces = [token.surface for token in tokens]
    if "'s" in surfaces:
        tokens = _possessives(tokens)
        surfaces = [token.surface for token in tokens]
    if not _RELATIVE.isdisjoint(surfaces):
        tokens = _relative_clauses(tokens)
        surfaces = [token.surface for token in tokens]
    if _BY in surfaces and not _AUXILIARIES.isdisjoint(surfaces):
        tokens = _passives(tokens, known)
    if "mean" in surfaces:
        tokens = _meanings(tokens)
    return tokens if _MARKING.isdisjoint(surfaces) else _marked(tokens)


def _without_clitic(tokens: list[Token]) -> list[Token]:
    """Pourquoi le ciel est-il bleu → pourquoi le ciel est bleu: a pronoun behind the verb of a named subject."""
    named = False
    for at in range(1, len(tokens)):
        token = tokens[at]
        if token.surface in _ENDS or tokens[0].kind != QUESTION:
            return tokens
        if named and token.surface in _CLITICS and tokens[at - 1].surface in _FRENCH_VERBS:
            return [*tokens[:at], *tokens[at + 1 :]]
        named |= token.kind in (WORD, NAME) and bool(token.key) and token.surface not in _FRENCH_VERBS
    return tokens


_CLITICS = frozenset(("il", "elle", "ils", "elles"))
_FRENCH_VERBS = frozenset(
    ("est", "sont", "a", "ont", "peut", "peuvent", "doit", "doivent", "fait", "font", "va", "vont")
)
_DROPPED = frozenset(("was", "were", "did"))
_MARKING = _BE | _DROPPED
_REWRITTEN = _MARKING | _RELATIVE | {":", "or", "'s", _BY, "mean"}
"""Words without which, and without names of technology, no sentence is in a form that is rewritten."""


def _marked(tokens: list[Token]) -> list[Token]:
    """Leave out auxiliaries; what they say beside the tense, that a verb is suffered and not done, goes to the verb."""
    out: list[Token] = []
    passive = False
    for token in tokens:
        surface = token.surface
        if surface in _BE:
            passive = True
        elif surface in _ENDS or surface == "did" or token.kind == PRONOUN:
            passive = False
        elif passive and token.form == PAST and token.kind == WORD:
            token, passive = token._replace(key=f"{token.key}!"), False
        out.append(token._replace(key="") if surface in _DROPPED else token)
    return out


def _lists(tokens: list[Token], known: Lexicon, *, asked: bool) -> list[Token]:
    """C, A and B → A, B and C: single words, with commas between them. Two lists may answer to each other by place."""
    joining = [token for token in tokens if token.kind == CONJUNCTION and token.key]
    if len(joining) != 1:
        return tokens
    spoken = [token for token in tokens if token.key or token.surface in _ENDS]
    end = next(at for at, token in enumerate(spoken) if token is joining[0])
    if not 2 < end < len(spoken) - 1:
        return tokens
    first = end - 2 if spoken[end - 1].surface == "," else end - 1
    places = [end + 1, first]
    while first > 1 and spoken[first - 1].surface == ",":
        first -= 2
        places.append(first)
    if len(places) < 3 or any(spoken[at].kind not in _LISTABLE for at in places):
        return tokens
    if not is_free(_listed(tokens, spoken, places, asked=asked), known):
        return tokens
    items = sorted((spoken[at] for at in places), key=lambda token: token.key)
    for at, item in zip(sorted(places), items, strict=True):
        spoken[at] = item
    return spoken


def _listed(tokens: list[Token], spoken: list[Token], places: list[int], *, asked: bool) -> Listed:
    first = min(places)
    behind = spoken[first - 1]
    at = next(at for at, token in enumerate(tokens) if token is spoken[first])
    return Listed(
        words=[token.surface for token in tokens],
        keys=[token.key for token in tokens],
        kinds=[spoken[place].kind for place in places],
        behind=behind.surface,
        behind_kind=behind.kind,
        marked=at > 0 and not tokens[at - 1].key and tokens[at - 1].surface not in _ENDS,
        asked=asked,
        alternative=spoken[max(places) - 1].surface == "or",
    )


def _written_in(tokens: list[Token], known: Lexicon) -> list[Token]:
    """A Python function → a function in Python."""
    for at in range(len(tokens) - 1):
        if tokens[at].surface in known.technology and tokens[at + 1].surface in known.code_nouns:
            return [*tokens[:at], tokens[at + 1], _IN, tokens[at], *tokens[at + 2 :]]
    return tokens


def _bounds(tokens: list[Token]) -> list[Token]:
    """Three or more → at least three."""
    for at in range(1, len(tokens) - 1):
        if tokens[at].surface == "or" and tokens[at - 1].kind == NUMBER and tokens[at + 1].surface in _BOUNDS:
            bound = _BOUNDS[tokens[at + 1].surface]
            return [*tokens[: at - 1], Token(bound, bound, QUANTIFIER, BASE), tokens[at - 1], *tokens[at + 2 :]]
    return tokens


def _possessives(tokens: list[Token]) -> list[Token]:
    """France's capital → capital of France: one word behind it, and in front of it a run of names or one word."""
    out: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.surface == "'s" and out and at + 1 < len(tokens) and tokens[at + 1].kind not in (PREPOSITION, SYMBOL):
            owner = [out.pop()]
            while out and owner[0].kind == NAME and out[-1].kind == NAME:
                owner.insert(0, out.pop())
            if out and out[-1].surface in _OWNERS:
                owner.insert(0, out.pop())  # My phone's language → language of my phone.
            out.extend((tokens[at + 1], _OF, *owner))
            at += 2
            continue
        out.append(token)
        at += 1
    return out


def _relative_clauses(tokens: list[Token]) -> list[Token]:
    """A person who is not happy → a not happy person: only one adjective, and nothing behind it."""
    for at in range(1, len(tokens) - 2):
        if tokens[at].surface in _RELATIVE and tokens[at + 1].surface in ("is", "are"):
            noun, end = tokens[at - 1], at + 2
            if tokens[end].kind == NEGATION:
                end += 1
            if noun.kind != WORD or end >= len(tokens) or not tokens[end].key or tokens[end].kind == SYMBOL:
                continue
            if end + 1 == len(tokens) or tokens[end + 1].surface in _ENDS:
                return [*tokens[: at - 1], *tokens[at + 2 : end + 1], noun, *tokens[end + 1 :]]
    return tokens


def _passives(tokens: list[Token], known: Lexicon) -> list[Token]:
    """Was the castle inherited by Michael → did Michael inherit the castle, in each sentence that is one clause."""
    out: list[Token] = []
    sentence: list[Token] = []
    for token in (*tokens, Token(".", "", SYMBOL, BASE)):
        if token.surface in _ENDS:
            out.extend(_active(sentence, known))
            out.append(token)
            sentence = []
        else:
            sentence.append(token)
    return out


def _active(sentence: list[Token], known: Lexicon) -> list[Token]:
    auxiliary = next((at for at, token in enumerate(sentence) if token.surface in _AUXILIARIES), None)
    if auxiliary is None or auxiliary > 1 or (auxiliary == 1 and sentence[0].kind not in (QUESTION, NAME)):
        return sentence
    for at in range(auxiliary + 1, len(sentence) - 2):
        verb, by, agent = sentence[at], sentence[at + 1], sentence[at + 2]
        if by.surface == _BY and verb.surface in _ALSO_PAST:
            key = _ALSO_PAST[verb.surface]
            verb = Token(verb.surface, known.word(key).key, WORD, PAST)
        if by.surface == _BY and (verb.form == PAST or verb.surface == verb.key) and verb.kind == WORD:
            if agent.kind in (NUMBER, PREPOSITION) or agent.form == GERUND or verb.form != PAST:
                return sentence
            if any(token.kind == PREPOSITION for token in sentence[at + 2 :]):
                return sentence
            patient = [*sentence[:auxiliary], *sentence[auxiliary + 1 : at]]
            if patient and patient[0].kind == QUESTION and len(patient) > 1 and auxiliary == 1:
                return [patient[0], *sentence[at + 2 :], verb, *patient[1:]]
            return [*sentence[at + 2 :], verb, *patient]
    return sentence


def asks_for_a_thing(tokens: list[Token]) -> bool:
    """Whether a prompt asks for a thing, not for what somebody does or did: "what is the best size for X", as "the best
    size for X" does too."""
    if len(tokens) < 3 or tokens[0].surface != "what" or tokens[1].surface not in ("is", "are"):
        return False
    end = next((at for at, token in enumerate(tokens) if at > 2 and token.surface in _ENDS), len(tokens))
    start = 3 if tokens[2].surface in _DETERMINERS else 2
    named = tokens[start:end]
    if not named or (start == 2 and not any(token.surface == "of" for token in named[1:5])):
        return False
    if named[-1].form in (GERUND, PAST) or named[-1].kind in (PREPOSITION, PRONOUN):
        return False
    before = {token.surface: at for at, token in enumerate(named)}.get("of", 0)
    return not before or named[before - 1].form not in (GERUND, PAST)


def _meanings(tokens: list[Token]) -> list[Token]:
    """What does X mean → define X."""
    if tokens[0].surface == "what" and len(tokens) > 2:
        for at in range(2, len(tokens)):
            if tokens[at].surface == "mean" and (at + 1 == len(tokens) or tokens[at + 1].surface in _ENDS):
                start = 2 if tokens[1].surface in ("does", "do", "is") else 1
                return [Token("define", "define", QUESTION, BASE), *tokens[start:at], *tokens[at + 1 :]]
    return tokens

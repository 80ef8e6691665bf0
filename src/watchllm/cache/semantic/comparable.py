"""What of two prompts is compared: without what only one of them says and that says nothing."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from msgspec import structs

from watchllm.cache.semantic.features import Features
from watchllm.cache.semantic.lexicon import EMOTE

_UNASKED: Final = ("", "?")


def comparable(a: Features, b: Features) -> tuple[Features, Features]:
    """Both, without what only one of them says and that says nothing: what shows a mood at the ends of sentences, and
    "what is" before a thing that the other only names."""
    if (EMOTE in a.kinds) != (EMOTE in b.kinds):
        a, b = _without_emotes(a), _without_emotes(b)
    if a.named and not b.named and b.question in _UNASKED:
        a = _only(a, range(1, len(a.keys)))
    elif b.named and not a.named and a.question in _UNASKED:
        b = _only(b, range(1, len(b.keys)))
    return a, b


def _without_emotes(side: Features) -> Features:
    """All other tokens are kept in their places."""
    if EMOTE not in side.kinds:
        return side
    ends = {*side.starts, len(side.keys)}
    kept: list[int] = []
    for at in reversed(range(len(side.keys))):
        if side.kinds[at] == EMOTE and (at + 1 in ends or at in ends):
            ends.update((at, at + 1))
        else:
            kept.append(at)
    return _only(side, kept[::-1])


def _only(side: Features, kept: Sequence[int]) -> Features:
    """The tokens at these places, which are in order; all of them rather than none."""
    if not kept:
        return side
    return structs.replace(
        side,
        keys=tuple(side.keys[at] for at in kept),
        surfaces=tuple(side.surfaces[at] for at in kept),
        kinds=bytes(side.kinds[at] for at in kept),
        before=bytes(side.before[at] for at in kept),
        starts=tuple(sorted({bisect_left(kept, start) for start in side.starts})),
    )

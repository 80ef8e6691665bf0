"""A route: every target that may answer a request, and the order in which they are tried.

Which of several weighted choices comes first is drawn from a digest of the request, not from chance: the same question
always goes the same way, so that its answer is found in the cache. The draw is weighted rendezvous hashing
(Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005): a choice that is added, removed or given
another weight moves only the questions that it gains or loses, and the rest keep their answers.
"""

from hashlib import blake2b
from math import log

import msgspec

from watchllm.domain.snapshot import RouteRecord
from watchllm.routing.target import Target

_DRAW_BYTES = 7
# One more than the largest number drawn: 56 bits, so that every quotient below is exact and less than 1.
_DRAWS = 1 << (8 * _DRAW_BYTES)


class Choice(msgspec.Struct, frozen=True):
    """One of a route's weighted choices: a model with all credentials for it, in order of priority; never empty."""

    weight: int
    targets: tuple[Target, ...]
    name: str = ""


class Route(msgspec.Struct, frozen=True):
    """What a request may be answered by. `name` is the rule's, or the model's where no rule names it.

    Only targets that the project may use and has a credential for are in it, at least one. `choices` and `fallbacks`
    hold all credentials of a provider for a model, in order of priority. `retries` counts the further tries at one
    target. Times in seconds, None = the gateway's own bounds: `try_timeout` for one call upstream, `timeout` for all
    together; `hedge_after` None = no hedging.
    """

    name: str
    choices: tuple[Choice, ...]
    fallbacks: tuple[tuple[Target, ...], ...] = ()
    retries: int = 0
    try_timeout: float | None = None
    timeout: float | None = None
    hedge_after: float | None = None

    @property
    def first(self) -> Target:
        """The target of a request of which nothing is known: the first choice's, else the first fallback's."""
        return self.choices[0].targets[0] if self.choices else self.fallbacks[0][0]

    @property
    def first_targets(self) -> tuple[Target, ...]:
        """The same with all of its credentials."""
        return self.choices[0].targets if self.choices else self.fallbacks[0]

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to draw or to fall back to: one target, whatever is asked."""
        return len(self.choices) == 1 and len(self.choices[0].targets) == 1 and not self.fallbacks

    @property
    def tries_once(self) -> bool:
        """Whether a target is called once and with the gateway's own bounds, whatever comes of it."""
        return self.retries == 0 and self.try_timeout is self.timeout is self.hedge_after is None

    def candidates(self, affinity: bytes) -> tuple[Target, ...]:
        """The targets in the order they are tried, each once: the choice drawn by weight from `affinity` (any bytes
        that are the same for the same question), then the other choices, the heaviest first, then the fallbacks."""
        if self.is_plain:
            return self.choices[0].targets
        ordered: dict[tuple[str, str, str, str], Target] = {}
        for choice in self._in_turn(affinity):
            for target in choice.targets:
                ordered.setdefault(target.identity, target)
        for targets in self.fallbacks:
            for target in targets:
                ordered.setdefault(target.identity, target)
        return tuple(ordered.values())

    def _in_turn(self, affinity: bytes) -> list[Choice]:
        if len(self.choices) < 2:
            return list(self.choices)
        drawn = min(self.choices, key=lambda choice: _distance(affinity, choice))
        others = (choice for choice in self.choices if choice is not drawn)
        return [drawn, *sorted(others, key=lambda choice: -choice.weight)]


def rule_for(model: str, rules: tuple[RouteRecord, ...]) -> RouteRecord | None:
    """The rule that names `model`: the exact one, else the longest that ends in `*`, else None."""
    found: RouteRecord | None = None
    for rule in rules:
        if rule.name == model:
            return rule
        prefix = rule.name[:-1]
        if rule.name[-1:] == "*" and model.startswith(prefix) and (found is None or len(prefix) >= len(found.name)):
            found = rule
    return found


def _distance(affinity: bytes, choice: Choice) -> float:
    """How far a choice is from a question; over all questions it is the nearest as often as its weight says."""
    digest = blake2b(affinity, key=blake2b(choice.name.encode(), digest_size=32).digest(), digest_size=_DRAW_BYTES)
    uniform = (int.from_bytes(digest.digest()) + 1) / (_DRAWS + 1)
    return -log(uniform) / choice.weight

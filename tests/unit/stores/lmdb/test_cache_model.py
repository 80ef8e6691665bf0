"""The exact cache against a plain dictionary, under random work: what it holds is right, bounded and well counted."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.exact_store import Clock, entry, invalidate, key, open_lmdb, project, sealed_body, stats
from watchllm.cache.entry import Entry, InvalidationFilter
from watchllm.stores.lmdb.cache import LmdbExactStore

BOUND = 1 << 20
_numbers = st.integers(0, 40)
_projects = st.integers(1, 3)
_models = st.sampled_from(["m1", "m2"])
_kinds = st.sampled_from(["generate", "embeddings"])
_maybe = st.none() | st.integers(-5_000, 5_000)

_steps = st.one_of(
    st.tuples(st.just("put"), _projects, _numbers, _models, _kinds, st.sampled_from([10, 1500, 2500, 30_000])),
    st.tuples(st.just("late put"), _projects, _numbers, _models, _kinds, st.integers(0, 20_000)),
    st.tuples(st.just("remove"), _projects, _numbers),
    st.tuples(st.just("get"), _projects, _numbers),
    st.tuples(st.just("invalidate"), _projects, st.none() | _models, st.none() | _kinds, _maybe, _maybe),
    st.tuples(st.just("time"), st.integers(-20_000, 200_000)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("reopen")),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_steps, max_size=60))
def test_it_holds_what_a_dictionary_would_or_less(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(Path(folder))
        for step in steps:
            run.do(*step)
        run.check()
        run.store.close()


class _Run:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.clock = Clock()
        self.store: LmdbExactStore = open_lmdb(place, BOUND, self.clock)
        self.model: dict[tuple[int, int], Entry] = {}
        self.voided: list[tuple[int, int, InvalidationFilter]] = []
        self._newest = 0
        self._evicted_earlier = 0

    def do(self, what: str, *arguments: object) -> None:
        getattr(self, "do_" + what.replace(" ", "_"))(*arguments)

    def do_put(self, of: int, number: int, model: str, kind: str, size: int) -> None:
        self._put(of, number, model, kind, size, self.clock())

    def do_late_put(self, of: int, number: int, model: str, kind: str, age: int) -> None:
        self._put(of, number, model, kind, 100, self.clock() - age)

    def _put(self, of: int, number: int, model: str, kind: str, size: int, begun: int) -> None:
        stored = entry(self.clock(), body=sealed_body(number, size), model=model, kind=kind, ttl_ms=60_000)
        self.store.put(project(of), key(number), stored, begun)
        refused = any(
            of == other and begun <= at and what.matches(model, kind, stored.created_ms)
            for other, at, what in self.voided
        )
        # The clock may have gone back: then the store may refuse more than it must, never less.
        if refused:
            found = self.store.get(project(of), key(number))
            assert found is None or found == self.model.get((of, number))
        elif self.store.get(project(of), key(number)) == stored:
            self.model[of, number] = stored
        else:
            assert any(of == other and at > begun for other, at, _ in self.voided) or self._clock_went_back(of)
            self.store.remove(project(of), key(number))
            self.model.pop((of, number), None)

    def _clock_went_back(self, of: int) -> bool:
        return self._newest > self.clock() and any(other == of for other, _, _ in self.voided)

    def do_remove(self, of: int, number: int) -> None:
        self.store.remove(project(of), key(number))
        self.model.pop((of, number), None)
        assert self.store.get(project(of), key(number)) is None

    def do_get(self, of: int, number: int) -> None:
        found = self.store.get(project(of), key(number))
        assert found is None or found == self.model[of, number]

    def do_invalidate(
        self, of: int, model: str | None, kind: str | None, before: int | None, after: int | None
    ) -> None:
        now = self.clock()
        what = InvalidationFilter(
            model, kind, None if before is None else now + before, None if after is None else now + after
        )
        self.voided.append((of, now, what))
        gone = [
            at
            for at, held in self.model.items()
            if at[0] == of and what.matches(held.model, held.kind, held.created_ms)
        ]
        assert invalidate(self.store, project(of), what) <= len(gone)
        for at in gone:
            del self.model[at]
            assert self.store.get(project(of), key(at[1])) is None

    def do_time(self, ms: int) -> None:
        self._newest = max(self._newest, self.clock())
        self.clock.advance(ms)

    def do_flush(self) -> None:
        self.store.flush()
        assert self.store.counters()["bytes"] <= BOUND

    def do_reopen(self) -> None:
        self.store.flush()
        self._evicted_earlier += self._evicted()
        self.store.close()
        self.store = open_lmdb(self.place, BOUND, self.clock)

    def _evicted(self) -> int:
        counters = self.store.counters()
        return int(counters["evicted"] + counters["expired"])

    def check(self) -> None:
        self.store.flush()
        assert self.store.audit() == []
        assert self.store.health() is None
        held = {at: found for at in self.model if (found := self.store.get(project(at[0]), key(at[1])))}
        assert all(found == self.model[at] for at, found in held.items())
        for of in (1, 2, 3):
            assert stats(self.store, project(of)).entries == sum(at[0] == of for at in held)
        if self._evicted_earlier + self._evicted() == 0:
            assert held == self.model, "nothing may be lost while there is room"

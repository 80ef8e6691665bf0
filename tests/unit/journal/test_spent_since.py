"""What was spent beyond the ledger: right at any moment and place, and each record read about once."""

import random
import weakref
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.journal import call, event, journal_in
from watchllm.domain.ledger import Periods, Place
from watchllm.domain.usage_event import UsageEvent
from watchllm.journal import series_sums
from watchllm.journal.journal import Journal
from watchllm.journal.records import SETTLED, Reading, Record, read_segment, tag_of
from watchllm.journal.segment import segment_path
from watchllm.journal.spent_since import End, NotYetKnown, SpentSince

DAY_NS = 86_400_000_000_000
TODAY = 20_000


class Host:
    """Some processes' journals, and a recorder that has counted each of them up to one of its records."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.journals: list[Journal] = []
        self.written: dict[str, list[tuple[Place, UsageEvent]]] = {}
        self.counted: dict[str, int] = {}
        self.reads = 0

    def start(self) -> Journal:
        journal = journal_in(self.home)
        self.journals.append(journal)
        self.written[journal.series] = []
        self.counted[journal.series] = 0
        return journal

    def settle(self, journal: Journal, one: UsageEvent) -> None:
        journal.settled(one)
        place = journal.end()
        assert place is not None
        self.written[journal.series].append((place, one))

    def record(self, journal: Journal, number: int) -> None:
        """Count so many records more, and remove the segments that are done with."""
        series, written = journal.series, self.written[journal.series]
        self.counted[series] = min(len(written), self.counted[series] + number)
        for sequence in range(self.places().get(series, Place(0, 0)).sequence):
            Path(segment_path(journal.folder, series, sequence)).unlink(missing_ok=True)

    def places(self) -> dict[str, Place]:
        return {series: self.written[series][done - 1][0] for series, done in self.counted.items() if done}

    def read(self, subjects: list[str]) -> tuple[dict[str, Periods], dict[str, Place]]:
        """As the ledger: nothing of the past is told, so that what is added can be looked at alone."""
        self.reads += 1
        return {}, self.places()

    def uncounted(self, subject: str, up_to: dict[str, int]) -> dict[int, list[int]]:
        expected: dict[int, list[int]] = {}
        for series, written in self.written.items():
            for _, one in written[self.counted[series] : up_to.get(series)]:
                if subject in (one.key_id, one.project_id, organization_of(one.project_id)):
                    sums = expected.setdefault(one.at_ns // DAY_NS, [0, 0])
                    sums[0] += 1
                    sums[1] += one.cost or 0
        return expected


def organization_of(project_id: str) -> str | None:
    return f"org_{int(project_id[4:]) % 2}" if project_id != "prj_3" else None


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    for journal in host.journals:
        journal.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each look into a segment brought."""
    counts: list[int] = []

    def counted(path: str, offset: int, *, limit: int) -> Reading:
        reading = read_segment(path, offset, limit=limit)
        counts.append(len(reading.records))
        return reading

    monkeypatch.setattr(series_sums, "read_segment", counted)
    return counts


def some(choose: random.Random) -> UsageEvent:
    project = choose.randrange(4)
    day = TODAY - choose.randrange(2)
    key = f"key_{project}_{choose.randrange(3)}"
    return event(at_ns=day * DAY_NS, project_id=f"prj_{project}", key_id=key, cost=choose.randrange(100))


SUBJECTS = [
    *(f"key_{project}_{number}" for project in range(4) for number in range(3)),
    *(f"prj_{number}" for number in range(4)),
    *("org_0", "org_1"),
]


def own_end(journal: Journal) -> End:
    place = journal.end()
    assert place is not None
    return End(journal.series, place)


@pytest.mark.parametrize("most_sums", [50_000, 20])
def test_it_is_right_at_any_moment_wherever_the_recorder_is(
    host: Host, monkeypatch: pytest.MonkeyPatch, most_sums: int
) -> None:
    monkeypatch.setattr(series_sums, "MOST_SUMS", most_sums)
    monkeypatch.setattr("watchllm.journal.spent_since.MOST_SUMS", most_sums)
    monkeypatch.setattr(series_sums, "_MOST_PIECES", 3)
    choose = random.Random(7)
    own, others = host.start(), [host.start(), host.start()]
    since = SpentSince(host, own.folder, organization_of)
    ends: list[tuple[End, int]] = []
    for _ in range(300):
        what = choose.random()
        journal = choose.choice([own, *others])
        if what < 0.5:
            for _ in range(choose.choice([1, 3, 300])):
                host.settle(journal, some(choose))
        elif what < 0.7:
            host.record(journal, choose.choice([1, 7, 500]))
        else:
            ends.append((own_end(own), len(host.written[own.series])))
            # Some have waited longer than others.
            end, written = choose.choice(ends[-3:])
            if written < host.counted[own.series]:
                continue
            asked = choose.sample(SUBJECTS, 3)
            _, sums = since.up_to(end, asked, patient=True)
            assert sums.days == {name: host.uncounted(name, {own.series: written}) for name in asked}


def test_the_second_key_costs_what_is_new(host: Host, read: list[int]) -> None:
    own, other = host.start(), host.start()
    choose = random.Random(1)
    for _ in range(2000):
        host.settle(own, some(choose))
        host.settle(other, some(choose))
    since = SpentSince(host, own.folder, organization_of)
    since.up_to(own_end(own), ["key_0_0"], patient=True)
    assert sum(read) == 4000
    host.settle(own, some(choose))
    read.clear()
    since.up_to(own_end(own), ["key_0_1", "prj_0"], patient=True)
    assert sum(read) == 1
    # The recorder goes on: of what is left, one piece of each journal at most is read again.
    host.record(own, 700)
    host.record(other, 700)
    read.clear()
    _, sums = since.up_to(own_end(own), ["org_0"], patient=True)
    assert sums.days["org_0"] == host.uncounted("org_0", {})
    assert sum(read) <= 2 * 1400
    read.clear()
    since.up_to(own_end(own), ["org_1"], patient=True)
    assert sum(read) == 0


def test_memory_is_bounded_whoever_is_seen(host: Host, read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_sums, "MOST_SUMS", 100)
    own = host.start()
    for number in range(500):
        host.settle(own, event(at_ns=TODAY * DAY_NS, project_id="prj_1", key_id=f"key_{number}", cost=1))
    since = SpentSince(host, own.folder, organization_of)
    for _ in range(2):
        read.clear()
        _, sums = since.up_to(own_end(own), ["key_499", "prj_1"], patient=True)
        assert sums.days == {"key_499": {TODAY: [1, 1]}, "prj_1": {TODAY: [500, 500]}}
        assert all(each.size <= 100 for each in since._sums.values())
    assert sum(read) == 500
    host.record(own, 500)
    for number in range(50):
        host.settle(own, event(at_ns=TODAY * DAY_NS, project_id="prj_1", key_id=f"key_{number}", cost=1))
    _, sums = since.up_to(own_end(own), ["key_49", "prj_1"], patient=True)
    assert sums.days == {"key_49": {TODAY: [1, 1]}, "prj_1": {TODAY: [50, 50]}}
    read.clear()
    since.up_to(own_end(own), ["key_48"], patient=True)
    assert sum(read) == 0, "what came after it can be remembered"


def test_what_a_process_that_ended_left_open_is_charged_once(host: Host) -> None:
    own, other = host.start(), host.start()
    since = SpentSince(host, own.folder, organization_of)
    at_ns = TODAY * DAY_NS
    other.opened(call("req_1", at_ns=at_ns))
    other.opened(call("req_2", at_ns=at_ns))
    host.settle(other, event("req_2", at_ns=at_ns, cost=7))

    def known() -> dict[int, list[int]]:
        return since.up_to(own_end(own), ["prj_1"], patient=False)[1].days["prj_1"]

    assert known() == {TODAY: [1, 7]}
    other.opened(call("req_3", at_ns=at_ns))
    assert known() == {TODAY: [1, 7]}, "who writes it lives"
    host.settle(other, event("req_1", at_ns=at_ns, cost=5))
    other.close()
    host.journals.remove(other)
    with pytest.raises(NotYetKnown):
        since.up_to(own_end(own), ["prj_1"], patient=True)
    estimated = 100 * 150  # Tokens of what was sent, nano-dollars for each.
    assert known() == known() == {TODAY: [2, 12 + estimated]}


def test_what_is_not_whole_yet_is_looked_at_again(host: Host) -> None:
    own, other = host.start(), host.start()
    since = SpentSince(host, own.folder, organization_of)
    at_ns = TODAY * DAY_NS
    host.settle(other, event(at_ns=at_ns, cost=1))
    place = other.end()
    assert place is not None
    host.settle(other, event(at_ns=at_ns, cost=2))
    host.settle(other, event(at_ns=at_ns, cost=4))
    path = Path(segment_path(other.folder, other.series, place.sequence))
    content = path.read_bytes()

    def known() -> list[int]:
        return since.up_to(own_end(own), ["prj_1"], patient=True)[1].days["prj_1"][TODAY]

    with path.open("r+b") as file:
        file.seek(place.offset + 12)
        file.write(b"\xff")
    assert known() == [2, 5]
    with path.open("r+b") as file:
        file.write(content)
    assert known() == [3, 7]


class Records(list[Record]):
    """What a look into a segment brought, of which it can be seen whether it is held."""


def test_what_is_behind_damage_is_not_held_in_memory(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = host.start(), host.start()
    places = []
    for _ in range(40):
        host.settle(other, event(at_ns=TODAY * DAY_NS, cost=1))
        place = other.end()
        assert place is not None
        places.append(place)
    path = Path(segment_path(other.folder, other.series, places[0].sequence))
    with path.open("r+b") as file:
        for place in places[:-1:2]:
            file.seek(place.offset + 12)
            file.write(b"\xff")
    looks: list[weakref.ref[Records]] = []
    held: list[int] = []

    def watched(path: str, offset: int, *, limit: int) -> Reading:
        held.append(sum(look() is not None for look in looks))
        reading = read_segment(path, offset, limit=limit)
        records = Records(reading.records)
        looks.append(weakref.ref(records))
        return msgspec.structs.replace(reading, records=records)

    monkeypatch.setattr(series_sums, "read_segment", watched)
    since = SpentSince(host, own.folder, organization_of)
    _, sums = since.up_to(own_end(own), ["prj_1"], patient=True)
    assert sums.days == {"prj_1": {TODAY: [20, 20]}}
    assert len(looks) >= 20
    assert max(held) <= 2, "those before are let go of"


def test_records_that_are_not_understood_are_left_to_the_recorder(host: Host) -> None:
    own = host.start()
    own.append(tag_of(SETTLED) + 1, b"\x91\xa1x")
    own.append(tag_of(SETTLED), b"\x91\xa1x")
    host.settle(own, event(at_ns=TODAY * DAY_NS, cost=3))
    since = SpentSince(host, own.folder, organization_of)
    assert since.up_to(own_end(own), ["key_1"], patient=True)[1].days == {"key_1": {TODAY: [1, 3]}}

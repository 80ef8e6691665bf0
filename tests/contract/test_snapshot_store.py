"""What every snapshot store promises: proxies see a publication whole, at once, and only the newest."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from watchllm.control.publication import Installation, Publication, SnapshotWriter
from watchllm.domain.settings import ProjectSettings
from watchllm.domain.snapshot import KeyRecord, PriceRow, ProjectRecord, ProviderKeyRecord, SnapshotReader, Vendor
from watchllm.domain.usage import ModelPrice
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.stores.lmdb.snapshot_writer import LmdbSnapshotWriter
from watchllm.stores.redis.snapshot_writer import RedisSnapshotWriter

INSTALLATION = Installation("11" * 16, "sqlite:///watchllm.db")

DIGEST = bytes(range(32))
KEY = KeyRecord("key_1", "prj_1", test=True, scopes=("inference", "cache:write"), expires_at=17)
PROJECT = ProjectRecord(
    "prj_1",
    "org_1",
    "näme",
    ProjectSettings(cache_ttl=5),
    (ProviderKeyRecord("pvk_1", "openai", b"\x00\xff", None, 3),),
)
VENDOR = Vendor("openai", "https://api.example/v1", "OPENAI", ("gpt-",), defaults={"generate": {"temperature": 1}})
ROW = PriceRow({"or": [{"equals": "a"}, {"starts_with": "b"}]}, ModelPrice(input=150_000_000), "a")


@pytest.fixture(params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SnapshotWriter, SnapshotReader]]:
    # The reader first: a proxy may be there before anything was published.
    folder = tmp_path / "home" / "snapshot"
    reader = LmdbSnapshotReader(folder)
    if request.param == "redis":
        server = RedisServer(tmp_path / "redis")
        writer: SnapshotWriter = RedisSnapshotWriter(server.url, folder, INSTALLATION)
        # What is lost there is never begun with a part of it.
        writer.update(lambda: Publication(complete=True))
        yield writer, reader
        server.stop()
    else:
        writer = LmdbSnapshotWriter(folder)
        yield writer, reader
    reader.close()
    writer.close()


def publish(writer: SnapshotWriter, publication: Publication) -> bool:
    return writer.update(lambda: publication)


def test_nothing_published_is_all_absent(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    writer, reader = store
    assert (reader.version(), reader.key(DIGEST), reader.project("prj_1")) == (writer.version(), None, None)
    assert (reader.vendors(), reader.prices("openai"), reader.secret("cache_hash")) == ((), (), None)


def test_projects_are_looked_at_up_to_a_limit(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    writer, reader = store
    assert not reader.any_project(lambda _project: True, 10)
    projects = {f"prj_{number}": ProjectRecord(f"prj_{number}", "org_1", "n") for number in range(5)}
    assert publish(
        writer, Publication({DIGEST: KEY}, projects, (VENDOR,), {"openai": (ROW,)}, {"s": b"s"}, complete=True)
    )
    looked_at: list[str] = []
    assert reader.any_project(lambda project: project.id == "prj_3", 10)
    assert not reader.any_project(lambda project: looked_at.append(project.id) is not None, 3)
    assert len(looked_at) == 3
    assert not reader.any_project(lambda project: looked_at.append(project.id) is not None, 99)
    assert len(looked_at) == 3 + 5


def test_what_was_published_is_read_back(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    writer, reader = store
    everything = Publication(
        {DIGEST: KEY}, {"prj_1": PROJECT}, (VENDOR,), {"openai": (ROW,)}, {"cache_hash": bytes(32)}, complete=True
    )
    before = reader.version()
    assert publish(writer, everything)
    assert reader.version() > before
    assert reader.key(DIGEST) == KEY
    assert reader.project("prj_1") == PROJECT
    assert reader.vendors() == (VENDOR,)
    assert reader.prices("openai") == (ROW,)
    assert reader.prices("groq") == ()
    assert reader.secret("cache_hash") == bytes(32)


def test_a_reader_opened_before_sees_a_removal_at_once(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    writer, reader = store
    publish(writer, Publication(keys={DIGEST: KEY}))
    assert reader.key(DIGEST) == KEY
    before = reader.version()
    publish(writer, Publication(keys={DIGEST: None}))
    assert reader.key(DIGEST) is None
    assert reader.version() > before


def test_the_version_grows_only_when_something_differs(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    writer, reader = store
    publication = Publication(keys={DIGEST: KEY}, projects={"prj_1": PROJECT}, vendors=(VENDOR,))
    assert writer.differs(publication)
    assert publish(writer, publication)
    version = reader.version()
    assert not writer.differs(publication)
    assert not publish(writer, publication)
    assert reader.version() == writer.version() == version


def test_a_complete_publication_removes_what_is_not_in_it(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    writer, reader = store
    publish(writer, Publication({DIGEST: KEY}, {"prj_1": PROJECT}, prices={"openai": (ROW,)}, secrets={"old": b"x"}))
    before = reader.version()
    rest = Publication(projects={"prj_1": PROJECT}, complete=True)
    assert writer.differs(rest)
    publish(writer, rest)
    assert (reader.key(DIGEST), reader.prices("openai"), reader.secret("old")) == (None, (), None)
    assert reader.project("prj_1") == PROJECT
    assert reader.version() > before


def test_a_complete_publication_leaves_the_projects_that_it_keeps(
    store: tuple[SnapshotWriter, SnapshotReader],
) -> None:
    writer, reader = store
    projects = {name: ProjectRecord(name, "org_1", name) for name in ("prj_1", "prj_2", "prj_3")}
    publish(writer, Publication({DIGEST: KEY}, dict(projects)))
    rest = Publication(projects={"prj_1": PROJECT}, complete=True, kept_projects=frozenset({"prj_2", "prj_absent"}))
    assert publish(writer, rest)
    found = [reader.project(name) for name in ("prj_1", "prj_2", "prj_3", "prj_absent")]
    assert found == [PROJECT, projects["prj_2"], None, None]
    assert not writer.differs(rest)
    assert publish(writer, Publication(projects={"prj_1": PROJECT}, complete=True))
    assert reader.project("prj_2") is None


def test_an_incomplete_one_leaves_the_rest_alone(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    writer, reader = store
    publish(writer, Publication({DIGEST: KEY}, {"prj_1": PROJECT}, (VENDOR,)))
    publish(writer, Publication(keys={bytes(32): KEY}))
    assert reader.key(DIGEST) == KEY
    assert reader.vendors() == (VENDOR,)


def test_a_failing_derivation_changes_nothing(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    writer, reader = store
    publish(writer, Publication({DIGEST: KEY}))
    version = reader.version()

    def fails() -> Publication:
        raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError):
        writer.update(fails)
    assert (reader.version(), reader.key(DIGEST)) == (version, KEY)
    assert publish(writer, Publication({DIGEST: None}))


def test_derivation_excludes_every_other_publisher(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    """The stale-publisher race: the second derives only after the first has published."""
    writer, reader = store
    truth: dict[bytes, KeyRecord | None] = {DIGEST: KEY}
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> Publication:
        seen = dict(truth)
        inside.set()
        assert go_on.wait(10)
        return Publication(keys=seen)

    def quick() -> Publication:
        return Publication(keys=dict(truth))

    first = threading.Thread(target=writer.update, args=(slow,))
    first.start()
    assert inside.wait(10)
    truth[DIGEST] = None
    second = threading.Thread(target=writer.update, args=(quick,))
    second.start()
    go_on.set()
    first.join(10)
    second.join(10)
    assert reader.key(DIGEST) is None


def test_another_process_sees_a_publication_at_once(
    store: tuple[SnapshotWriter, SnapshotReader], tmp_path: Path
) -> None:
    writer, reader = store
    code = (
        "import sys; from pathlib import Path; from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader\n"
        "reader = LmdbSnapshotReader(Path(sys.argv[1]))\n"
        "for line in sys.stdin: print(reader.version(), reader.key(bytes(range(32))) is not None, flush=True)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "home" / "snapshot")], stdin=-1, stdout=-1, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None

    def ask() -> str:
        child.stdin.write("\n")
        child.stdin.flush()
        return child.stdout.readline().strip()

    assert ask() == f"{reader.version()} False"
    publish(writer, Publication({DIGEST: KEY}))
    assert ask() == f"{reader.version()} True"
    publish(writer, Publication({DIGEST: None}))
    assert ask() == f"{reader.version()} False"
    child.communicate()


def test_an_absurd_provider_name_has_no_prices(store: tuple[SnapshotWriter, SnapshotReader]) -> None:
    _, reader = store
    assert reader.prices("x" * 5000) == ()

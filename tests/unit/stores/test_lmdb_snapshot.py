"""What is particular to the snapshot in LMDB: private files, growth, damaged files, an older or newer writer."""

import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from watchllm.control.publication import Publication
from watchllm.domain.snapshot import KeyRecord
from watchllm.stores.lmdb.environment import StoreBroken, acquire, release
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.stores.lmdb.snapshot_writer import LmdbSnapshotWriter


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    LmdbSnapshotReader(tmp_path / "home" / "snapshot").close()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home", tmp_path / "home" / "snapshot")]
    assert modes == [0o700, 0o700]
    files = list((tmp_path / "home" / "snapshot").iterdir())
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_full_map_grows_and_readers_of_other_processes_follow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from watchllm.stores.lmdb import environment\n"
        "acquire = environment.acquire\n"
        "environment.acquire = lambda folder: acquire(folder, map_size=1 << 20)\n"
        "from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader\n"
        "reader = LmdbSnapshotReader(Path(sys.argv[1]))\n"
        "for line in sys.stdin: print(reader.version(), reader.secret('19') is not None, flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "0 False\n"
    writer = LmdbSnapshotWriter(tmp_path, map_size=1 << 20)
    reader = LmdbSnapshotReader(tmp_path)
    secrets = {str(number): bytes(1 << 20) for number in range(20)}
    assert writer.update(lambda: Publication(secrets=secrets))
    assert reader.secret("19") == bytes(1 << 20)
    output, _ = child.communicate("\n")
    assert output == "1 True\n"
    reader.close()
    writer.close()


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreBroken, match=rf"{tmp_path}.*Remove this folder"):
        LmdbSnapshotReader(tmp_path)


def test_one_process_may_hold_a_reader_and_a_writer(tmp_path: Path) -> None:
    first, second = acquire(tmp_path), acquire(tmp_path)
    assert first is second
    release(tmp_path)
    assert first.info()["map_size"] > 0
    release(tmp_path)
    release(tmp_path)


def test_a_child_of_a_parent_that_has_it_open_is_told_so(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from watchllm.stores.lmdb import environment\n"
        "folder = Path(sys.argv[1]); environment.acquire(folder)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        environment.acquire(folder)\n"
        "    except environment.StoreBroken as error:\n"
        "        print(error, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0); environment.release(folder)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    environment.acquire(folder); print('opened after the fork', flush=True); os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"{tmp_path} was open when this process was forked; open it after the fork\nopened after the fork\n"
    )


def test_an_older_proxy_reads_a_newer_record_and_the_other_way_round(tmp_path: Path) -> None:
    """Fields are appended with defaults: more of them are ignored, missing ones take theirs."""

    class NewerKey(KeyRecord, frozen=True, array_like=True):
        novelty: str = "x"

    writer, reader = LmdbSnapshotWriter(tmp_path), LmdbSnapshotReader(tmp_path)
    with acquire(tmp_path).begin(write=True) as transaction:
        transaction.put(b"k" + bytes(32), msgspec.msgpack.encode(NewerKey("key_1", "prj_1")))
        transaction.put(b"k" + bytes([1]) * 32, msgspec.msgpack.encode(["key_2", "prj_2"]))
    release(tmp_path)
    assert reader.key(bytes(32)) == KeyRecord("key_1", "prj_1")
    assert reader.key(bytes([1]) * 32) == KeyRecord("key_2", "prj_2")
    reader.close()
    writer.close()

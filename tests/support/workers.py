"""The processes of one installation, as the machine knows them."""

from pathlib import Path

from tests.support.processes import BackgroundProcess


def in_group_of(leader: int) -> list[int]:
    """The process ids of a process group, the dead that nobody has waited for left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if int(group) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def called(process: BackgroundProcess, name: str) -> list[int]:
    """The process ids of those that a supervisor started under a name that begins like this, such as `proxy`."""
    found = []
    for pid in sorted(in_group_of(process.pid)):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if pid != process.pid and command.startswith(f"watchllm {name}".encode()):
            found.append(pid)
    return found

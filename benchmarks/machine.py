"""The machine that is measured on: which cores server and load get, what a process used of it, what it is.

Linux only where it matters: pinning and the counters under /proc do not exist elsewhere, and the figures say so.
"""

import os
import platform
import shutil
from pathlib import Path
from typing import Any

MIB = 1 << 20
_GROUPS = Path("/sys/fs/cgroup/cpu")
_PERIOD_US = 20_000


class Cores:
    """Server and load get a core each, so that neither steals time from the other."""

    def __init__(self) -> None:
        available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.pinned = len(available) >= 2 and shutil.which("taskset") is not None
        self._server, self._load = (available[0], available[1]) if self.pinned else (0, 0)
        self.has_spare = self.pinned and len(available) >= 3
        self._spare = available[2] if self.has_spare else self._load
        self._others = [core for core in available if core != self._load]
        self._available = available

    @property
    def server(self) -> tuple[str, ...]:
        """The prefix of a command that runs on the server's core."""
        return ("taskset", "-c", str(self._server)) if self.pinned else ()

    def servers(self, count: int) -> tuple[str, ...]:
        """The prefix of a command whose `count` processes have a core each, the load's too where there is no other."""
        if count == 1 or not self.pinned:
            return self.server
        cores = (self._others if self.has_cores_for(count) else self._available)[:count]
        return ("taskset", "-c", ",".join(map(str, cores)))

    def has_cores_for(self, count: int) -> bool:
        """Whether `count` processes can have a core each that is not the load's."""
        return len(self._others) >= count

    @property
    def load(self) -> tuple[str, ...]:
        """The prefix of a command that runs on the load's core."""
        return ("taskset", "-c", str(self._load)) if self.pinned else ()

    @property
    def spare(self) -> tuple[str, ...]:
        """The prefix of a command beside server and load: a core of its own where there is a third, else the load's."""
        return ("taskset", "-c", str(self._spare)) if self.pinned else ()

    def take_load_core(self) -> None:
        """Put this process on the load's core."""
        if self.pinned:
            os.sched_setaffinity(0, {self._load})


class CpuShare:
    """A bound on the CPU time of processes, all of their threads together, as a part of one core: a control group of
    the kernel's first version, for which one has to be root."""

    available = (_GROUPS / "cpu.cfs_quota_us").exists() and os.access(_GROUPS, os.W_OK)

    def __init__(self, pid: int, part: float) -> None:
        self._folder = _GROUPS / f"watchllm-benchmark-{pid}"
        self._folder.mkdir()
        self._write("cpu.cfs_period_us", _PERIOD_US)
        self._write("cpu.cfs_quota_us", int(part * _PERIOD_US))
        self._write("cgroup.procs", pid)

    def close(self) -> None:
        """Give those that still run all of the CPU again."""
        for pid in (self._folder / "cgroup.procs").read_text().split():
            (_GROUPS / "cgroup.procs").write_text(pid)
        self._folder.rmdir()

    def _write(self, name: str, value: int) -> None:
        (self._folder / name).write_text(str(value))


def cpu_seconds(pid: int) -> float:
    """CPU time that all threads of a process have used so far, to the nanosecond where the kernel counts so finely."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        schedule = task / "schedstat"
        if schedule.exists():
            total += int(schedule.read_text().split()[0]) / 1e9
        else:
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process: `Rss` all that is mapped in, `Pss` its share of that, `Anonymous` what is no file's."""
    wanted = ("Rss", "Pss", "Anonymous")
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in lines if name in wanted}


def children(pid: int) -> list[int]:
    """The process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def description() -> dict[str, Any]:
    """What this machine is, for whoever reads the figures later."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }

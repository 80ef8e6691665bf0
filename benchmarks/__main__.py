"""`python -m benchmarks [--only NAME] [--json FILE]`: run the figures and print their tables.

Exit code 0 when all were measured, whether or not their targets were met (a benchmark is not a test); 1 when one could
not be measured.
"""

import argparse
import importlib
import json
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.figure import Row, show
from benchmarks.load import LoadFailed
from benchmarks.machine import description

FIGURES = {
    "exact_hit": "Exact hit",
    "hit_recorded": "What recording costs an exact hit",
    "hit_steps": "Where the time of one hit goes",
    "passthrough": "Pass-through",
    "miss_steps": "Where the time of one miss goes",
    "streamed": "Streamed pass-through",
    "cold_start": "Cold start",
    "memory": "Memory at rest",
    "journal": "Journal",
    "recorder": "Journal to database",
    "recorder_beside": "Exact hits beside a recorder that is applying",
    "canonical": "Canonical form and key",
    "translation": "Translation between dialects",
    "coalescing": "Coalescing",
    "semantic.index": "Semantic cache: embedding and search",
    "semantic_hit": "Semantic hit",
}
ON_REQUEST = {
    "exact_hit_redis": "Exact hit, the cache in Redis",
    "workers": "Several workers",
    "exact_hit_limits": "Exact hit under limits, in process and shared in Redis",
    "soak": "Soak: a million distinct requests (minutes)",
    "idle_projects": "What a project costs a proxy (minutes)",
    "cache_store": "The exact cache's store by itself",
}
_PROGRAMS = ("nginx", "wrk")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the product's figures.")
    parser.add_argument("--only", metavar="NAME", choices=[*FIGURES, *ON_REQUEST], help=f"one of: {_names()}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        console.print(f"not installed: {', '.join(missing)} (apt-get install {' '.join(missing)})", style="red")
        return 1

    machine = description()
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), style="dim", highlight=False)
    chosen = [arguments.only] if arguments.only else list(FIGURES)
    results: dict[str, list[Row]] = {}
    failed = 0
    for name in chosen:
        with Bench() as bench:
            if not bench.cores.pinned:
                console.print("server and load share their cores: no pinning on this machine", style="yellow")
            try:
                results[name] = importlib.import_module(f"benchmarks.{name}").run(bench)
            except (LoadFailed, AssertionError) as error:
                failed += 1
                console.print(f"{name}: could not be measured: {error}", style="red", markup=False)
                continue
        show((FIGURES | ON_REQUEST)[name], results[name], console)
    if arguments.json is not None:
        figures = {name: [row.as_json() for row in rows] for name, rows in results.items()}
        document = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine, "figures": figures}
        arguments.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return 1 if failed else 0


def _names() -> str:
    return ", ".join([*FIGURES, *ON_REQUEST])


if __name__ == "__main__":
    sys.exit(main())

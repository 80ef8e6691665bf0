"""What a project costs a proxy: one that is in the snapshot and asks nothing, and one that asked once and then rests.

The snapshot has 10,000 projects with limits of their own, in 1,000 organizations, and 100,000 keys.
"""

import time

from msgspec.structs import replace

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import Client
from benchmarks.machine import memory
from tests.support.product import Gateway, Installation, Project
from watchllm.control.publication import Publication
from watchllm.domain import ids, keys
from watchllm.domain.limits import Limits
from watchllm.domain.snapshot import KeyRecord, OrganizationRecord
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.stores.lmdb.snapshot_writer import LmdbSnapshotWriter

PROJECTS, KEYS = 10_000, 100_000
_PROJECTS_OF_AN_ORGANIZATION = 10
# Longer than anything of a project is kept that asks nothing (limits: 5 minutes, swept once a minute).
_REST_SECONDS = 390.0


def run(bench: Bench) -> list[Row]:
    with bench.sim() as sim, bench.proxy(sim.base_url) as (gateway, project):
        _ask(gateway, project.key)
        gateway.stop()
        installation = gateway.installation
        gateway = installation.start_proxy()
        _ask(gateway, project.key)
        few = memory(gateway.process.pid)
        gateway.stop()
        one_of_each = _publish(installation, project)
        recorder = installation.start_recorder()
        gateway = installation.start_proxy()
        try:
            _ask(gateway, project.key)
            many = memory(gateway.process.pid)
            for key in one_of_each:
                _ask(gateway, key)
            asked = memory(gateway.process.pid)
            time.sleep(_REST_SECONDS)
            # Something has to happen for it to be looked who rests.
            _ask(gateway, project.key)
            rested = memory(gateway.process.pid)
            for key in one_of_each:
                _ask(gateway, key)
            again = memory(gateway.process.pid)
        finally:
            gateway.stop()
            recorder.stop()

    def each(after: dict[str, int], before: dict[str, int], kind: str) -> float:
        return (after[kind] - before[kind]) / PROJECTS

    note = (
        f"{PROJECTS:,} projects with limits and a budget, {KEYS:,} keys; differences of a process's memory ÷ projects"
    )
    return [
        Row(
            "an idle project, anonymous memory",
            each(many, few, "Anonymous"),
            "bytes",
            target=Target("≤", 1024),
            note=note,
        ),
        Row(
            "the same, resident (the mapped snapshot included)",
            each(many, few, "Rss"),
            "bytes",
            target=Target("≤", 1024),
        ),
        Row("one that has asked once, anonymous", each(asked, many, "Anonymous"), "bytes"),
        Row(f"the same after {_REST_SECONDS:.0f} s without a request", each(rested, many, "Anonymous"), "bytes"),
        Row("added by one request more of each", each(again, asked, "Anonymous"), "bytes"),
    ]


def _ask(gateway: Gateway, key: str) -> None:
    client = Client(gateway.port, key)
    client.post(prompts.body(0))
    client.close()


def _publish(installation: Installation, project: Project) -> list[str]:
    """Put everybody into the snapshot; a key of each project."""
    folder = installation.home / "snapshot"
    reader = LmdbSnapshotReader(folder)
    pattern = reader.project(project.id)
    reader.close()
    assert pattern is not None
    limits = {"requests_per_minute": 600, "tokens_per_minute": 1_000_000, "budget_usd_month": 1_000.0}
    projects, records, one_of_each = {}, {}, []
    for number in range(PROJECTS):
        name = ids.new_id(ids.PROJECT)
        if number % _PROJECTS_OF_AN_ORGANIZATION == 0:
            organization = OrganizationRecord(
                ids.new_id(ids.ORGANIZATION), "free", limits=Limits(monthly_requests=10**6)
            )
        projects[name] = replace(
            pattern,
            id=name,
            organization_id=organization.id,
            organization=organization,
            settings=replace(pattern.settings, **limits),
        )
        for index in range(KEYS // PROJECTS):
            key = keys.generate(test=False)
            records[keys.digest(key)] = KeyRecord(ids.new_id(ids.KEY), name)
            if index == 0:
                one_of_each.append(key)
    writer = LmdbSnapshotWriter(folder)
    writer.update(lambda: Publication(keys=dict(records), projects=dict(projects)))
    writer.close()
    return one_of_each

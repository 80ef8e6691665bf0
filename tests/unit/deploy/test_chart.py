"""The Helm chart, rendered by a small reader of our own: no Helm is needed for these tests."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployed import DEPLOY, check_command, is_public, unknown_variables
from tests.support.helm_template import Chart

FOLDER = DEPLOY / "helm/watchllm"
ALL = {
    "proxy": {"adminPort": 9100, "annotations": {"a": "b"}, "nodeSelector": {"disk": "ssd"}},
    "networkPolicy": {"enabled": True, "from": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
    "secrets": {"providerKeys": "providers"},
    "config": {"WATCHLLM_REGION": "eu-1", "WATCHLLM_MAX_UPSTREAM": 100},
    "image": {"tag": "1.2.3", "pullSecrets": [{"name": "ours"}]},
    "journals": {"storageClassName": "fast"},
    "console": {"publicUrl": "https://console.example"},
    "files": {"plans": '[team]\ntitle = "Team"\n', "prices": '[x."*"]\ninput = 1\n'},
}
LEAST = {"console": {"enabled": False}, "migrations": {"enabled": False}}


@pytest.fixture(params=[{}, ALL, LEAST], ids=["defaults", "everything", "least"])
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return Chart(FOLDER).render(request.param)


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def pods(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [manifest["spec"]["template"]["spec"] for manifest in manifests if "template" in manifest.get("spec", {})]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {row["name"]: row for row in container["env"]}


def proxy_pod(values: dict[str, Any] | None = None) -> dict[str, Any]:
    pod: dict[str, Any] = one(Chart(FOLDER).render(values), "StatefulSet")["spec"]["template"]["spec"]
    return pod


def test_every_container_runs_a_command_that_exists_with_settings_that_exist(manifests: list[dict[str, Any]]) -> None:
    for pod in pods(manifests):
        for container in containers(pod):
            check_command(container["args"])
            assert unknown_variables(variables(container)) == set()
            assert is_public(container["image"])
            assert container["resources"]["limits"]["memory"]


def test_every_container_has_as_few_rights_as_it_needs(manifests: list[dict[str, Any]]) -> None:
    for pod in pods(manifests):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        for container in containers(pod):
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"]
            assert not rights["allowPrivilegeEscalation"]
            assert rights["capabilities"] == {"drop": ["ALL"]}
            named = {row["name"] for row in pod["volumes"]} | ({"home"} if pod.get("initContainers") else set())
            assert {mount["name"] for mount in container["volumeMounts"]} <= named


def test_selectors_find_the_pods_that_are_meant(manifests: list[dict[str, Any]]) -> None:
    labelled = [manifest["spec"]["template"]["metadata"]["labels"] for manifest in manifests if _has_pods(manifest)]
    for manifest in manifests:
        selector = manifest.get("spec", {}).get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            assert len([labels for labels in labelled if wanted.items() <= labels.items()]) == 1, manifest["metadata"]


def _has_pods(manifest: dict[str, Any]) -> bool:
    return "template" in manifest.get("spec", {})


def test_services_lead_to_ports_that_exist(manifests: list[dict[str, Any]]) -> None:
    ports = {port["name"] for pod in pods(manifests) for row in containers(pod) for port in row.get("ports", [])}
    for manifest in manifests:
        if manifest["kind"] == "Service":
            assert {port["targetPort"] for port in manifest["spec"]["ports"]} <= ports


def test_a_proxy_knows_no_way_into_the_database() -> None:
    pod = proxy_pod(ALL)
    (proxy,), (recorder,) = pod["containers"], pod["initContainers"]
    assert not [name for name in variables(proxy) if "DATABASE" in name]
    assert "WATCHLLM_DATABASE_URL" in variables(recorder)
    assert proxy["envFrom"] == [{"secretRef": {"name": "providers"}}]
    assert "envFrom" not in recorder


def test_secrets_come_from_those_that_exist() -> None:
    for pod in pods(Chart(FOLDER).render()):
        for container in containers(pod):
            given = variables(container)
            for name in ("WATCHLLM_SECRET_KEY", "WATCHLLM_REDIS_URL", "WATCHLLM_DATABASE_URL"):
                if name in given:
                    assert given[name]["valueFrom"]["secretKeyRef"] == {"name": "watchllm", "key": name}
            for name in given:
                if name.endswith(("_DIRECT_URL", "_REPLICA_URL", "_PREVIOUS")):
                    wanted = {"name": "watchllm", "key": name, "optional": True}
                    assert given[name]["valueFrom"]["secretKeyRef"] == wanted


def test_a_pod_is_given_the_time_to_leave_to_drain_and_to_record() -> None:
    pod = proxy_pod({"proxy": {"leaveSeconds": 7, "drainSeconds": 90}})
    (proxy,), (recorder,) = pod["containers"], pod["initContainers"]
    assert pod["terminationGracePeriodSeconds"] >= 7 + 90 + 15
    assert variables(proxy)["WATCHLLM_DRAIN_SECONDS"]["value"] == "90"
    assert recorder["restartPolicy"] == "Always", "else it would not be a sidecar, and be told to stop with the proxy"
    assert "--outlive-proxies" in recorder["args"]
    assert recorder["volumeMounts"] == proxy["volumeMounts"], "it reads the journal that the proxy writes"
    script = proxy["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert re.fullmatch(r"sleep 7; kill -USR2 1; while kill -0 1; do sleep 1; done", script)


def test_journals_outlive_their_pod() -> None:
    stateful = one(Chart(FOLDER).render(ALL), "StatefulSet")["spec"]
    (claim,) = stateful["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "home"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "4Gi"}},
    }
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_plans_and_prices_are_the_same_wherever_something_is_published_or_recorded() -> None:
    manifests = Chart(FOLDER).render(ALL)
    held = one(manifests, "ConfigMap")
    assert held["data"] == {f"{name}.toml": text for name, text in ALL["files"].items()}
    hook = {"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/hook-weight": "-1"}
    assert hook.items() <= held["metadata"]["annotations"].items(), "it has to be there before the migrations publish"
    mounted = set()
    for pod in pods(manifests):
        (volume,) = [row for row in pod["volumes"] if row["name"] == "files"]
        assert volume["configMap"]["name"] == held["metadata"]["name"]
        for container in containers(pod):
            paths = {mount["mountPath"]: mount.get("subPath") for mount in container["volumeMounts"]}
            if paths.get("/var/lib/watchllm/plans.toml") == "plans.toml":
                assert paths["/var/lib/watchllm/prices.toml"] == "prices.toml"
                mounted.add(container["name"])
    assert mounted == {"console", "recorder", "migrate"}


def test_pods_are_made_anew_when_plans_or_prices_change() -> None:
    def notes(values: dict[str, Any]) -> list[Any]:
        found = [row["spec"]["template"]["metadata"] for row in Chart(FOLDER).render(values) if _has_pods(row)]
        return [row.get("annotations") for row in found if row["labels"]["app.kubernetes.io/component"] != "migrate"]

    before, after = notes({}), notes({"files": {"plans": "[team]"}})
    assert len(before) == 2
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_settings_reach_every_process() -> None:
    for pod in pods(Chart(FOLDER).render(ALL)):
        for container in containers(pod):
            assert variables(container)["WATCHLLM_REGION"]["value"] == "eu-1"
            assert variables(container)["WATCHLLM_MAX_UPSTREAM"]["value"] == "100"


def test_network_access_is_limited_only_where_that_is_asked_for() -> None:
    chart = Chart(FOLDER)
    assert all(manifest["kind"] != "NetworkPolicy" for manifest in chart.render())
    policy = one(chart.render(ALL), "NetworkPolicy")["spec"]
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "web"}}}]
    assert [port["port"] for port in rule["ports"]] == [8787, 3000, 9100]


def test_every_value_is_used_and_every_one_used_is_there() -> None:
    chart = Chart(FOLDER)
    text = "".join(path.read_text() for path in (FOLDER / "templates").iterdir())
    used = set(re.findall(r"\.Values\.([\w.]+)", text))
    defined = set(_paths(chart.values))
    assert {name for name in used if not any(_within(known, name) for known in defined)} == set()
    assert {name for name in defined if not any(_within(name, known) for known in used)} == set()


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _paths(values: dict[str, Any], above: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        path = f"{above}{name}"
        found += _paths(value, f"{path}.") if isinstance(value, dict) and value else [path]
    return found


def test_the_notes_name_a_command_that_exists() -> None:
    notes = Chart(FOLDER).text("NOTES.txt")
    assert "test-watchllm-proxy.here:80/v1" in notes
    check_command(notes.strip().partition("-- watchllm ")[2].split())


def test_no_template_is_left_out() -> None:
    assert {path.suffix for path in Path(FOLDER / "templates").iterdir()} == {".yaml", ".tpl", ".txt"}

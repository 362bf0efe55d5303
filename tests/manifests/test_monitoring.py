"""The alerts fire when they should and the dashboard asks for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.manifests.rendering import MANIFESTS, Document, named, of_kind, render, variant
from tests.manifests.test_commands import container, parsed, running, status
from tests.manifests.test_network_policies import (
    MANAGED_PROMETHEUS,
    PREDICTOR,
    PROMETHEUS,
    STRANGER,
    TASK,
    may_enter,
    may_leave,
    ours,
)
from tests.monitoring.metrics.test_metrics import sample_health
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.metrics.reader import Reader
from visionloop.serving import collector_metrics, kserve_model, request_counts

EVERYTHING = "gke with everything"
RULES = MANIFESTS / "components" / "monitoring-operator" / "rules.yaml"
DASHBOARD = MANIFESTS / "components" / "monitoring" / "dashboard.json"
METRIC = re.compile(r"\bvisionloop_[a-z_]+")
DAY = 86400
# Seconds between two samples.
STEP = 300
DECIDED = "decision_timestamp_seconds"
# Of each alert: series that set it off, and series of a loop that is well.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "VisionloopLakeUnreadable": ({"lake_readable": "0"}, {"lake_readable": "1"}),
    # Where no loop can be read, the alert is the lake's.
    "VisionloopLoopUnreadable": (
        {'loop_readable{loop="a"}': "1", 'loop_readable{loop="b"}': "0", "lake_readable": "1"},
        {'loop_readable{loop="a"}': "0", "lake_readable": "0"},
    ),
    "VisionloopHealthStale": (
        {"lake_read_timestamp_seconds": "0"},
        {"lake_read_timestamp_seconds": f"{2 * DAY}"},
    ),
    "VisionloopHealthGone": (
        {"build_info": "1"},
        {"lake_read_timestamp_seconds": f"{2 * DAY}"},
    ),
    "VisionloopActNow": (
        {'verdict{loop="a",state="act"}': "1"},
        {'verdict{loop="a",state="act"}': "0", 'verdict{loop="a",state="look"}': "1"},
    ),
    "VisionloopPublicationBlocked": (
        {'publication_blocked{loop="a"}': "1"},
        {'publication_blocked{loop="a"}': "0"},
    ),
    "VisionloopRolledBack": (
        {'rollback_timestamp_seconds{loop="a"}': f"{2 * DAY - 60}"},
        {'rollback_timestamp_seconds{loop="a"}': f"{DAY // 2}"},
    ),
    "VisionloopRollbackWaits": (
        {'rollback_waiting_timestamp_seconds{loop="a"}': "0"},
        {'rollback_waiting_timestamp_seconds{loop="a"}': f"{2 * DAY - 60}"},
    ),
    # What came into service since, by a person or a round, is not the worse model.
    "VisionloopRollbackFailed": (
        {
            f'{DECIDED}{{loop="a",decision="rollback",outcome="failed"}}': f"{2 * DAY - 60}",
            f'{DECIDED}{{loop="a",decision="rollback",outcome="published"}}': f"{2 * DAY - 3600}",
        },
        {
            f'{DECIDED}{{loop="a",decision="rollback",outcome="failed"}}': f"{2 * DAY - 3600}",
            f'{DECIDED}{{loop="a",decision="rollback",outcome="published"}}': f"{2 * DAY - 60}",
            f'{DECIDED}{{loop="b",decision="rollback",outcome="failed"}}': f"{2 * DAY - 3600}",
            f'{DECIDED}{{loop="b",decision="publish",outcome="published"}}': f"{2 * DAY - 60}",
            f'{DECIDED}{{loop="c",decision="rollback",outcome="overtaken"}}': f"{2 * DAY - 60}",
        },
    ),
    "VisionloopStageFailed": (
        {'stage_failed{loop="a",stage="train"}': "1"},
        {'stage_failed{loop="a",stage="train"}': "0"},
    ),
    "VisionloopSlowStage": (
        {'flagged{loop="a",kind="slow_stage",subject="train"}': "1"},
        {'flagged{loop="a",kind="camera_silent",subject="north"}': "1"},
    ),
    "VisionloopDrift": (
        {'flagged{loop="a",kind="source_drift",subject="roof",subject_type="source"}': "1"},
        {'flagged{loop="a",kind="slow_stage",subject="train"}': "1"},
    ),
    "VisionloopCameraSilent": (
        {'flagged{loop="a",kind="camera_silent",subject="north"}': "1"},
        {'flagged{loop="a",kind="slow_stage",subject="train"}': "1"},
    ),
    "VisionloopRoundWaits": (
        {'round_waiting_timestamp_seconds{loop="a"}': f"{-8 * DAY}"},
        {'round_waiting_timestamp_seconds{loop="a"}': f"{-4 * DAY}"},
    ),
    "VisionloopNoRound": (
        {
            'last_round_timestamp_seconds{loop="a"}': f"{-50 * DAY}",
            'rounds{loop="a",state="running"}': "0",
            'rounds{loop="a",state="waiting"}': "0",
        },
        {
            'last_round_timestamp_seconds{loop="a"}': f"{-50 * DAY}",
            'rounds{loop="a",state="running"}': "1",
            'rounds{loop="a",state="waiting"}': "0",
        },
    ),
    "VisionloopHarvestStopped": (
        {'stage_last_success_timestamp_seconds{loop="a",stage="harvest"}': f"{-3 * DAY}"},
        {'stage_last_success_timestamp_seconds{loop="a",stage="harvest"}': f"{DAY}"},
    ),
    "VisionloopUnreadableFiles": (
        {
            'round_files{loop="a",state="unreadable"}': "10",
            'round_files{loop="a",state="ok"}': "90",
            'round_files{loop="a",state="no_picture"}': "1000",
        },
        {'round_files{loop="a",state="unreadable"}': "1", 'round_files{loop="a",state="ok"}': "1"},
    ),
    # The first that is ever rejected sets it off.
    "VisionloopEventsRejected": (
        {'events{loop="a",state="rejected"}': "0x300 1x300"},
        {'events{loop="a",state="rejected"}': "7"},
    ),
    "VisionloopPoolExhausted": (
        {'flags{loop="a",kind="pool_exhausted",severity="warning"}': "1"},
        {'flags{loop="a",kind="pool_exhausted",severity="warning"}': "0"},
    ),
    "VisionloopLabelsDoubted": (
        {'flags{loop="a",kind="label_suspect",severity="warning"}': "3"},
        {'flags{loop="a",kind="label_suspect",severity="warning"}': "0"},
    ),
    "VisionloopErrorFlag": (
        {'flags{loop="a",kind="bad",severity="error"}': "1"},
        {'flags{loop="a",kind="bad",severity="warning"}': "1"},
    ),
    "VisionloopAccuracyFell": (
        {
            'production_accuracy_high_ratio{loop="a",endpoint="e"}': "0.8",
            'accuracy_low_ratio{loop="a"}': "0.9",
        },
        {
            'production_accuracy_high_ratio{loop="a",endpoint="e"}': "0.95",
            'accuracy_low_ratio{loop="a"}': "0.9",
        },
    ),
    "VisionloopNotificationsWait": (
        {'notifications_waiting_timestamp_seconds{loop="a"}': "0"},
        {'notifications_waiting_timestamp_seconds{loop="a"}': f"{2 * DAY - 60}"},
    ),
    "VisionloopEventsRefused": (
        {'collector_refused_total{reason="full"}': "0x562 1+1x20"},
        {'collector_refused_total{reason="full"}': "9"},
    ),
    "VisionloopEventsDropped": (
        {'events_dropped_total{reason="full"}': "0x562 1+1x20"},
        {'events_dropped_total{reason="full"}': "9"},
    ),
    "VisionloopCollectorDiskFull": (
        {"collector_free_bytes": "1000"},
        {"collector_free_bytes": "9000000000"},
    ),
    "VisionloopUploadsWait": (
        {"collector_waiting_uploads": "101"},
        {"collector_waiting_uploads": "3"},
    ),
    "VisionloopPredictorErrors": (
        {
            'inference_requests_total{namespace="n",code="5xx"}': "0+10x600",
            'inference_requests_total{namespace="n",code="2xx"}': "0+90x600",
        },
        {
            'inference_requests_total{namespace="n",code="5xx"}': "0+1x600",
            'inference_requests_total{namespace="n",code="2xx"}': "0+99x600",
        },
    ),
}


def rules() -> list[Document]:
    """Return the alert rules."""
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def exposed() -> set[str]:
    """Return the name of every metric that we expose."""
    reader = Reader(lambda: {"a": lambda _: sample_health()})
    reader.refresh()
    found = {one.name for one in text_string_to_metric_families(reader.text().decode())}
    # Of the servers: their modules list them.
    for module in (collector_metrics, request_counts, kserve_model):
        for name in METRIC.findall(Path(str(module.__file__)).read_text()):
            found |= {name, f"{name}_total"}
    return found


def promtool() -> str:
    """Return Prometheus's own checker."""
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is not installed here (Debian: apt-get install prometheus)")
    return found


def test_each_alert_says_how_grave_it_is_what_happened_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "runbook"}, rule["alert"]
        assert len(rule["annotations"]["runbook"]) > 40, rule["alert"]


def test_the_docs_list_each_alert_beside_its_severity() -> None:
    text = (MANIFESTS.parent / "docs" / "observability.md").read_text()
    listed = {
        (severity, f"Visionloop{name}")
        for severity, names in re.findall(r"^\| `(critical|warning|info)`.*?\|(.*)\|$", text, re.M)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert listed == {(rule["labels"]["severity"], rule["alert"]) for rule in rules()}


def test_rules_and_dashboard_ask_for_metrics_and_kinds_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [(rule["alert"], rule["expr"]) for rule in rules()]
    for panel in dashboard["panels"]:
        asked += [(panel["title"], target["expr"]) for target in panel["targets"]]
    asked += [("annotations", one["expr"]) for one in dashboard["annotations"]["list"]]
    asked += [("loop", dashboard["templating"]["list"][1]["query"]["query"])]
    there = exposed()
    for where, expression in asked:
        for name in METRIC.findall(expression):
            assert name in there, (where, name)
        for kinds in re.findall(r'kind!?="([^"]+)"', expression):
            assert kinds in KINDS, (where, kinds)
    assert len(asked) > 40
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["description"] for panel in dashboard["panels"])


def test_prometheus_reads_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text())["spec"]))
    done = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_prometheus_reads_what_the_dashboard_asks(tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [one["expr"] for one in dashboard["annotations"]["list"]]
    held = [
        {"record": f"one:asked{i}", "expr": expression.replace("$loop", "a")}
        for i, expression in enumerate(asked)
    ]
    file = tmp_path / "asked.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": held}]}))
    done = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_each_alert_fires_where_it_should_and_keeps_quiet_where_all_is_well(tmp_path: Path) -> None:
    assert set(CASES) == {rule["alert"] for rule in rules()}
    files = []
    for rule in rules():
        alert = rule["alert"]
        bad, good = CASES[alert]
        # A file each: promtool evaluates all rules of a file in each of its tests.
        held = {"groups": [{"name": "one", "rules": [rule]}]}
        (tmp_path / f"{alert}.rules").write_text(yaml.safe_dump(held))
        tests = {
            "rule_files": [f"{alert}.rules"],
            "evaluation_interval": f"{STEP}s",
            "tests": [_case(rule, bad, True), _case(rule, good, False)],
        }
        files.append(tmp_path / f"{alert}.yaml")
        files[-1].write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [promtool(), "test", "rules", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _case(rule: Document, series: dict[str, str], fires: bool) -> dict[str, Any]:
    """Return a test of promtool's: two days of samples, and what is true at their end."""
    held = [
        {
            "series": f"visionloop_{name}",
            "values": value if "x" in value else f"{value}x{2 * DAY // STEP}",
        }
        for name, value in series.items()
    ]
    # Whether it fires is asked of the alert's own series: texts and values are not compared here.
    found = f'count(ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}})'
    samples = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "interval": f"{STEP}s",
        "name": f"{rule['alert']} {'fires' if fires else 'keeps quiet'}",
        "input_series": held,
        "promql_expr_test": [{"expr": found, "eval_time": "2d", "exp_samples": samples}],
    }


def test_the_pod_tells_of_every_loop_and_reads_the_catalog_where_its_secret_is() -> None:
    held = container(EVERYTHING, "Deployment visionloop-monitoring")
    args = parsed(held["args"])
    assert args.serve and (args.host, args.port, args.loop) == ("0.0.0.0", 9109, None)
    assert held["ports"][0]["containerPort"] == args.port
    documents = variant(EVERYTHING)
    service = named(documents, "Service", "visionloop-monitoring")
    told = service["metadata"]["annotations"]
    assert told["prometheus.io/port"] == str(args.port) == str(service["spec"]["ports"][0]["port"])


def test_the_monitor_selects_services_that_have_its_port() -> None:
    documents = variant(EVERYTHING)
    [monitor] = of_kind(documents, "ServiceMonitor")
    [endpoint] = monitor["spec"]["endpoints"]
    [rule] = monitor["spec"]["selector"]["matchExpressions"]
    for component in rule["values"]:
        services = [
            one
            for one in of_kind(documents, "Service")
            if one["metadata"]["labels"].get("app.kubernetes.io/component") == component
        ]
        assert services, component
        for service in services:
            ports = {port["name"] for port in service["spec"]["ports"]}
            assert endpoint["port"] in ports, service["metadata"]["name"]


def test_grafanas_sidecar_finds_the_dashboard() -> None:
    dashboard = named(variant(EVERYTHING), "ConfigMap", "visionloop-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["dashboard.json"])["uid"] == "visionloop"


def test_the_local_overlay_gives_it_the_lakes_volume(tmp_path: Path) -> None:
    copy = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, copy)
    file = copy / "overlays" / "local" / "kustomization.yaml"
    line = "- ../../components/monitoring\n"
    assert f"# {line}" in file.read_text()
    file.write_text(file.read_text().replace(f"# {line}", line))
    pod = named(tuple(render(file.parent)), "Deployment", "visionloop-monitoring")
    mounts = pod["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "lake", "mountPath": "/mnt/visionloop"} in mounts


def test_only_prometheus_reaches_it_and_it_reaches_catalog_and_bucket() -> None:
    on_gke, locally = variant(EVERYTHING), variant("local with everything")
    pod = ours(on_gke, "monitoring")
    assert may_leave(on_gke, pod, "142.250.0.1", 443)
    assert may_leave(on_gke, pod, "10.8.0.4", 5432)
    assert not may_leave(on_gke, pod, "10.8.0.4", 443)
    assert not may_leave(locally, ours(locally, "monitoring"), "142.250.0.1", 443)
    assert may_enter(on_gke, PROMETHEUS, pod, 9109)
    assert may_enter(on_gke, MANAGED_PROMETHEUS, pod, 9109)
    for stranger in (STRANGER, TASK, PREDICTOR):
        assert not may_enter(on_gke, stranger, pod, 9109)


def test_it_answers_its_probes_where_there_is_no_lake(tmp_path: Path) -> None:
    held = container(EVERYTHING, "Deployment visionloop-monitoring")
    command = ["metrics", "--serve", f"--lake={tmp_path / 'lake'}", "--port=0"]
    with running(command, tmp_path) as port:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert status(port, held[probe]) == 200, probe

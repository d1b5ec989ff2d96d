"""Prometheus' alert rules: sound, each fires for what it is about and not otherwise, and each asks for metrics that are exported."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from taxi.params import load_params
from taxi.serving.metrics import REGISTRY

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "config", "--syntax-only", "prometheus.team.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_no_fault(words: tuple[str, ...]) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")

    done = subprocess.run(["promtool", *words], cwd=MONITORING, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tried_ill_and_well() -> None:
    ill, well = yaml.safe_load((MONITORING / "alerts.test.yml").read_text())["tests"]

    names = [rule["alert"] for rule in RULES]
    assert [case["alertname"] for case in ill["alert_rule_test"] if case["exp_alerts"]] == names
    assert [case["alertname"] for case in well["alert_rule_test"] if "exp_alerts" not in case] == names


def test_every_rule_asks_for_metrics_that_the_service_exports() -> None:
    described = {(metric.name, metric.type) for metric in REGISTRY.collect()}
    endings = {"counter": "_total", "histogram": "_bucket"}
    exported = {f"{name}{endings.get(kind, '')}" for name, kind in described}

    asked = {name for rule in RULES for name in re.findall(r"taxi_\w+", rule["expr"])}

    assert asked and asked <= exported


def test_every_rule_has_its_section_of_the_runbook_and_names_it() -> None:
    runbook = (MONITORING.parent / "docs/runbook.md").read_text(encoding="utf-8")

    assert re.findall(r"^### (.+)$", runbook, re.MULTILINE) == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_limits_of_latency_are_those_of_the_live_check() -> None:
    limits = load_params(MONITORING.parent / "params.yaml").alarms.live_p99_ms
    rules = {rule["alert"]: rule["expr"] for rule in RULES}

    assert [float(rules[name].split("> ")[1]) * 1000 for name in ("LatencyHigh", "LatencyVeryHigh")] == list(limits)


def test_a_teams_prometheus_differs_by_its_targets_and_its_key_alone() -> None:
    laptop, team = (
        yaml.safe_load((MONITORING / name).read_text()) for name in ("prometheus.yml", "prometheus.team.yml")
    )

    assert team["scrape_configs"][0].pop("authorization") == {"credentials_file": "/run/taxi/api-key"}
    for one in (laptop, team):
        for job in one["scrape_configs"]:
            del job["static_configs"]
            job.setdefault("metrics_path", "/metrics")
    assert team == laptop

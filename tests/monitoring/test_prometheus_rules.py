"""Prometheus' alert rules: sound, each fires for what it is about and not otherwise, and each asks for metrics that are exported."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from taxi.serving.metrics import REGISTRY

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(
    "words", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts.test.yml")], ids=" ".join
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
    exported = {f"{name}_total" if kind == "counter" else name for name, kind in described}

    asked = {name for rule in RULES for name in re.findall(r"taxi_\w+", rule["expr"])}

    assert asked and asked <= exported

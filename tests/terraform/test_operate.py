"""Costs, drift, the alarm drill and the guard of destruction, each on small cases or moto's server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from taxi.environment import Environment
from terraform.operate import cost, destroy, drift, drill, prove
from terraform.operate.state_bucket import make_state_bucket
from tests.support.mutants import MUTANTS

MODULE = cost.MODULE
REGION = {"region_name": "us-east-1"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield


def plan_of(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"planned_values": {"root_module": {"resources": [{"mode": "managed"} | one for one in resources]}}}


# --- Names: what Terraform sets is what the code reads.


def test_every_variable_of_a_task_is_one_that_the_code_or_its_libraries_read() -> None:
    text = (MODULE / "tasks.tf").read_text()
    fields = Environment.model_fields
    declared = {str(field.validation_alias or f"TAXI_{name.upper()}") for name, field in fields.items()}
    given = set(re.findall(r"^ +(TAXI_[A-Z_]+|MLFLOW_TRACKING_URI) +=", text, re.MULTILINE))

    assert given - {"TAXI_API_KEYS", "TAXI_ALARM_CHANNELS"} <= declared
    assert {"TAXI_DATA", "TAXI_PREDICTIONS", "TAXI_METRICS", "TAXI_ARTIFACTS", "TAXI_SOURCE", "TAXI_API_KEYS"} <= given
    assert "TAXI_PROXIES = " in text


def test_staging_is_dev_by_another_name() -> None:
    for ending in ("tfvars", "s3.tfbackend"):
        dev, staging = ((MODULE / f"environments/{name}.{ending}").read_text() for name in ("dev", "staging"))

        assert re.sub(r"\bdev\b", "staging", dev) == staging


def test_the_pattern_of_each_metric_filter_is_in_a_line_that_the_code_writes() -> None:
    text = (MODULE / "observability.tf").read_text()
    patterns = re.findall(r'pattern = "\\"(.+?)\\""', text)
    lines = [
        "2026-11-28 07:00:00 ERROR version 7 is refused as champion: digests differ",
        "2026-11-28 07:00:00 ERROR the spool is full: predictions are being lost",
    ]

    assert len(patterns) == 4
    assert all(any(pattern in line for line in lines) for pattern in patterns)
    source = (MODULE.parent / "taxi/serving/follower.py").read_text() + (
        MODULE.parent / "taxi/predictions/log.py"
    ).read_text()
    assert "is refused as %s" in source and "%s: predictions are being lost" in source


def test_every_mutant_changes_something_that_stands_there_and_names_a_rule() -> None:
    rules = re.findall(r'error_message = "(.+)"', (MODULE / "tests/rules.tftest.hcl").read_text())
    for name, mutant in MUTANTS.items():
        assert mutant.before in (MODULE / mutant.file).read_text(), name
        assert len([rule for rule in rules if mutant.rule in rule]) == 1, name


# --- Costs.


def test_a_task_of_half_a_vcpu_for_a_month_costs_what_the_list_says() -> None:
    task = {"type": "aws_ecs_task_definition", "index": "service", "values": {"cpu": "512", "memory": "2048"}}
    network = [{"assign_public_ip": True}]
    values = {"load_balancer": [{"container_name": "service"}], "desired_count": 2, "network_configuration": network}
    costs = cost.month_cost(plan_of(task, {"type": "aws_ecs_service", "values": values}), cost.read_prices())

    assert costs["tasks that serve"] == pytest.approx(2 * 730 * (0.5 * 0.04048 + 2 * 0.004445), abs=0.01)
    assert costs["public addresses"] == pytest.approx(2 * 730 * 0.005)


def test_a_kind_of_resource_without_a_price_is_refused() -> None:
    with pytest.raises(SystemExit, match="aws_nat_gateway has none"):
        cost.month_cost(plan_of({"type": "aws_nat_gateway", "values": {}}), cost.read_prices())


@pytest.mark.parametrize(("schedule", "runs"), [("cron(5 * * * ? *)", 730), ("cron(0 7 * * ? *)", 730 / 24)])
def test_runs_are_counted_by_the_schedule(schedule: str, runs: float) -> None:
    assert cost.runs_a_month(schedule) == pytest.approx(runs)


def test_over_ten_percent_more_than_agreed_needs_another_figure_with_a_note() -> None:
    table = {"agreed": {"lean": {"usd": 100, "note": "because"}}}

    cost.check_agreed("lean", 110, table)
    with pytest.raises(SystemExit, match=r"expected at most 110 dollars .* got 111"):
        cost.check_agreed("lean", 111, table)
    with pytest.raises(SystemExit, match="expected a note"):
        cost.check_agreed("lean", 50, {"agreed": {"lean": {"usd": 100, "note": ""}}})


def test_every_profile_has_an_agreed_figure_and_the_docs_table_has_its_sum() -> None:
    agreed = cost.read_prices()["agreed"]
    row = re.search(
        r"\*\*together\*\* \| \*\*([\d.]+)\*\* \| \*\*([\d.]+)\*\*", (MODULE.parent / "docs/aws.md").read_text()
    )

    assert row
    for profile, usd in zip(("lean", "prod"), row.groups(), strict=True):
        cost.check_agreed(profile, float(usd), {"agreed": agreed})


# --- Drift.


def change(before: Any, after: Any, unknown: Any = None, actions: tuple[str, ...] = ("update",)) -> dict[str, Any]:
    told = {"actions": list(actions), "before": before, "after": after, "after_unknown": unknown or {}}
    return {"resource_changes": [{"address": "a.b", "type": "a", "mode": "managed", "change": told}]}


def test_drift_names_the_attribute_what_it_is_and_what_terraform_says() -> None:
    plan = change({"id": 1, "rule": [{"status": "off"}]}, {"id": 1, "rule": [{"status": "on"}]})

    assert drift.changes(plan) == [("a.b", "rule[0].status", "off", "on")]


def test_what_is_gone_is_drift_and_what_is_not_known_yet_is_none() -> None:
    assert drift.changes(change(None, {"id": None}, actions=("create",))) == [("a.b", "", "not there", "there")]
    assert drift.changes(change({"arn": "x"}, {}, {"arn": True})) == []
    assert drift.changes(change({"arn": "x"}, {"arn": "y"}, actions=("no-op",))) == []


def test_what_moto_forgets_is_no_drift_and_another_value_of_it_is() -> None:
    def plan(before: Any) -> dict[str, Any]:
        told = change({"parameter": before}, {"parameter": [{"name": "rds.force_ssl", "value": "1"}]})
        told["resource_changes"][0] |= {"type": "aws_db_parameter_group"}
        return told

    assert prove.unexpected(plan([])) == []
    assert "a.b: parameter[0].value is '0'" in prove.unexpected(plan([{"name": "rds.force_ssl", "value": "0"}]))[0]


# --- The alarm drill.


def wire(
    monkeypatch: pytest.MonkeyPatch, ok: bool = True, person: bool = True, alarm_topic: str | None = None
) -> dict[str, Any]:
    """A topic with a queue and a person, and an alarm on it; moto does not send when an alarm changes, so this does in its place."""
    sns, sqs, cloudwatch = (boto3.client(name, **REGION) for name in ("sns", "sqs", "cloudwatch"))
    topic, queue = sns.create_topic(Name="alarms")["TopicArn"], sqs.create_queue(QueueName="alarms")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    if person:
        sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="a@example.org")
    actions = {"AlarmActions": [alarm_topic or topic], "OKActions": [topic] if ok else []}
    figures = {
        "MetricName": "m",
        "Namespace": "n",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1.0,
        "Statistic": "Sum",
    }
    cloudwatch.put_metric_alarm(AlarmName="one", ComparisonOperator="GreaterThanThreshold", **figures, **actions)

    def update(self: Any, reason: str, data: str, state: str) -> None:
        told = {"AlarmName": self.name, "NewStateValue": state, "NewStateReason": reason}
        for target in {"ALARM": self.alarm_actions, "OK": self.ok_actions}[state]:
            sns.publish(TopicArn=target, Message=json.dumps(told))

    monkeypatch.setattr("moto.cloudwatch.models.Alarm.update_state", update)
    return {"alarms": {"topic_arn": topic, "queue_url": queue, "names": ["one"]}}


def run_drill(outputs: dict[str, Any]) -> list[str]:
    return drill.drill(*(boto3.client(name, **REGION) for name in ("cloudwatch", "sns", "sqs")), outputs, "drill 1", 2)


def test_the_drill_passes_when_alarm_and_ok_came(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_drill(wire(monkeypatch)) == []


def test_an_alarm_whose_end_is_not_told_fails_the_drill(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "OKActions" in run_drill(wire(monkeypatch, ok=False))[0]


def test_the_wrong_topic_fails_the_drill(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "arn:aws:sns:us-east-1:123456789012:other"

    assert "AlarmActions" in run_drill(wire(monkeypatch, alarm_topic=other))[0]


def test_nobody_to_write_to_fails_the_drill(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no person" in run_drill(wire(monkeypatch, person=False))[0]


def test_an_address_that_has_not_confirmed_fails_the_drill(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, sns = wire(monkeypatch), boto3.client("sns", **REGION)
    real = sns.list_subscriptions_by_topic(TopicArn=outputs["alarms"]["topic_arn"])
    for one in real["Subscriptions"]:
        if one["Protocol"] == "email":
            one["SubscriptionArn"] = "PendingConfirmation"
    monkeypatch.setattr(sns, "list_subscriptions_by_topic", lambda TopicArn: real)
    clients = boto3.client("cloudwatch", **REGION), sns, boto3.client("sqs", **REGION)

    assert drill.drill(*clients, outputs, "drill 1", 2) == ["a@example.org has not confirmed"]


def test_a_message_that_does_not_come_fails_the_drill(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = wire(monkeypatch)
    monkeypatch.setattr("moto.cloudwatch.models.Alarm.update_state", lambda *_: None)

    assert run_drill(outputs) == ["ALARM of one was not delivered in 2 s", "OK of one was not delivered in 2 s"]


# --- The guard of destruction.

BUCKETS = {kind: f"taxi-{kind}" for kind in destroy.KEPT}


@pytest.fixture
def copy(aws: None, tmp_path: Path) -> Path:
    s3 = boto3.client("s3", **REGION)
    for bucket in BUCKETS.values():
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=BUCKETS["artifacts"], Key="1/model", Body=b"trees")
    files = {
        "database/mlflow.dump": b"PGDMP1",
        "database/taxi.dump": b"PGDMP2",
        "data/trips/m.parquet": b"p",
        "buckets/artifacts/1/model": b"trees",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    destroy.write_manifest(tmp_path, "dev")
    return tmp_path


def faults(copy: Path, environment: str = "dev") -> str:
    return "; ".join(destroy.faults_of(copy, environment, boto3.client("s3", **REGION), BUCKETS))


def test_a_whole_copy_lets_an_environment_be_destroyed(copy: Path) -> None:
    assert faults(copy) == ""


def test_a_copy_that_lacks_an_object_or_a_file_or_was_changed_is_refused(copy: Path) -> None:
    boto3.client("s3", **REGION).put_object(Bucket=BUCKETS["store"], Key="md5", Body=b"later")
    (copy / "data/trips/m.parquet").write_bytes(b"q")
    (copy / "database/taxi.dump").unlink()

    said = faults(copy)

    assert "s3://taxi-store/md5 is not in the copy with its 5 bytes" in said
    assert "data/trips/m.parquet is not as the manifest says" in said
    assert "database/taxi.dump is missing from the copy" in said


def test_an_old_copy_another_environments_or_none_is_refused(copy: Path) -> None:
    assert "expected a copy of prod; got one of dev" in faults(copy, "prod")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"at": "2020-01-01T00:00:00+00:00"}))
    assert "days old" in faults(copy)
    (copy / "manifest.json").write_text("{")
    assert "expected a manifest" in faults(copy)
    (copy / "manifest.json").unlink()
    assert "expected manifest.json" in faults(copy)


def test_the_states_bucket_is_closed_and_versioned_and_made_once(aws: None) -> None:
    s3 = boto3.client("s3", **REGION)
    for _ in range(2):
        make_state_bucket(s3, "taxi-state", "us-east-1")

    assert s3.get_bucket_versioning(Bucket="taxi-state")["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket="taxi-state")["PublicAccessBlockConfiguration"].values())

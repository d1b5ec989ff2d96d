"""Cost of a month from a plan and a dated price table: every planned kind of resource is priced, or is known to be free."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from terraform.operate.workspace import MODULE

HOURS = 730
LIMIT = 1.10  # times what was agreed
Prices = dict[str, Any]
Resource = dict[str, Any]

FREE = {
    "aws_acm_certificate", "aws_acm_certificate_validation", "aws_appautoscaling_policy", "aws_appautoscaling_target",
    "aws_budgets_budget", "aws_ce_anomaly_monitor", "aws_ce_anomaly_subscription", "aws_cloudwatch_event_rule",
    "aws_cloudwatch_event_target", "aws_db_parameter_group", "aws_db_subnet_group", "aws_default_security_group",
    "aws_ecr_lifecycle_policy", "aws_ecs_cluster", "aws_ecs_task_definition", "aws_efs_access_point", "aws_efs_mount_target",
    "aws_flow_log", "aws_iam_openid_connect_provider", "aws_iam_role", "aws_iam_role_policy",
    "aws_iam_role_policy_attachment", "aws_internet_gateway", "aws_kms_alias", "aws_lb_listener", "aws_lb_listener_rule",
    "aws_lb_target_group", "aws_route53_record", "aws_route_table", "aws_route_table_association",
    "aws_s3_bucket_lifecycle_configuration", "aws_s3_bucket_object_lock_configuration", "aws_s3_bucket_ownership_controls",
    "aws_s3_bucket_policy", "aws_s3_bucket_public_access_block", "aws_s3_bucket_server_side_encryption_configuration",
    "aws_s3_bucket_versioning", "aws_scheduler_schedule_group", "aws_secretsmanager_secret_rotation", "aws_security_group",
    "aws_sns_topic", "aws_sns_topic_policy", "aws_sns_topic_subscription", "aws_sqs_queue", "aws_sqs_queue_policy", "aws_subnet",
    "aws_vpc", "aws_vpc_security_group_egress_rule", "aws_vpc_security_group_ingress_rule",
    # by what they hold, which `usage` says once for all of their kind
    "aws_cloudwatch_log_group", "aws_ecr_repository", "aws_efs_file_system", "aws_s3_bucket",
}  # fmt: skip


def planned(plan: dict[str, Any]) -> list[Resource]:
    """Return the resources that will be there after the plan."""
    return plan["planned_values"]["root_module"].get("resources", [])


def _task_hour(prices: Prices, cpu: float, memory: float) -> float:
    """Return the price of a task's hour: CPU units of which 1024 are a vCPU, memory in MiB."""
    return cpu / 1024 * prices["fargate_vcpu_hour"] + memory / 1024 * prices["fargate_gb_hour"]


def runs_a_month(schedule: str) -> float:
    """Return how often a cron expression of minute and hour starts something in 730 hours; raise ValueError on others."""
    if match := re.fullmatch(r"cron\(\d+ (\*|\d+) (\*|\?) \* (\?|\*|SUN) \*\)", schedule):
        days = HOURS / 24 / (7 if match[3] == "SUN" else 1)
        return days * (24 if match[1] == "*" else 1)
    raise ValueError(f"expected cron(minute hour day month weekday year), daily, hourly or on Sundays; got {schedule}")


def _service(one: Resource, tasks: dict[str, Resource], prices: Prices, usage: Prices) -> Iterator[tuple[str, float]]:
    values = one["values"]
    task = tasks[values["load_balancer"][0]["container_name"]]
    hour = _task_hour(prices, float(task["cpu"]), float(task["memory"]))
    yield "tasks that serve", values["desired_count"] * HOURS * hour
    if values["network_configuration"][0]["assign_public_ip"]:
        yield "public addresses", values["desired_count"] * HOURS * prices["public_address_hour"]


def _schedule(one: Resource, tasks: dict[str, Resource], prices: Prices, usage: Prices) -> Iterator[tuple[str, float]]:
    if not one["values"]["target"][0]["ecs_parameters"]:
        return
    size = json.loads(one["values"]["target"][0]["input"])
    hours = runs_a_month(one["values"]["schedule_expression"]) * usage["job_minutes"][one["index"]] / 60
    hour = _task_hour(prices, float(size["cpu"]), float(size["memory"]))
    yield "jobs", hours * (hour + prices["public_address_hour"])


def _balancer(one: Resource, tasks: dict[str, Resource], prices: Prices, usage: Prices) -> Iterator[tuple[str, float]]:
    yield "balancer", HOURS * (prices["balancer_hour"] + usage["balancer_units"] * prices["balancer_unit_hour"])
    yield "public addresses", 2 * HOURS * prices["public_address_hour"]


def _endpoint(one: Resource, tasks: dict[str, Resource], prices: Prices, usage: Prices) -> Iterator[tuple[str, float]]:
    if one["values"]["vpc_endpoint_type"] == "Interface":
        yield "endpoints", 2 * HOURS * prices["endpoint_hour"]


def _database(one: Resource, tasks: dict[str, Resource], prices: Prices, usage: Prices) -> Iterator[tuple[str, float]]:
    values = one["values"]
    copies = 2 if values["multi_az"] else 1
    hour = prices[values["instance_class"].replace(".", "_") + "_hour"]
    yield "database", copies * (HOURS * hour + values["allocated_storage"] * prices["db_storage_gb"])
    if values["manage_master_user_password"]:
        yield "keys, secrets", prices["secret"]


def _each(line: str, price: str) -> Callable[..., Iterator[tuple[str, float]]]:
    def price_one(one: Resource, tasks: Any, prices: Prices, usage: Prices) -> Iterator[tuple[str, float]]:
        yield line, prices[price]

    return price_one


PRICED: dict[str, Callable[..., Iterator[tuple[str, float]]]] = {
    "aws_ecs_service": _service,
    "aws_scheduler_schedule": _schedule,
    "aws_lb": _balancer,
    "aws_vpc_endpoint": _endpoint,
    "aws_db_instance": _database,
    "aws_kms_key": _each("keys, secrets", "key"),
    "aws_secretsmanager_secret": _each("keys, secrets", "secret"),
    "aws_cloudwatch_metric_alarm": _each("alarms, metrics, dashboard", "alarm"),
    "aws_cloudwatch_log_metric_filter": _each("alarms, metrics, dashboard", "metric"),
    "aws_cloudwatch_dashboard": _each("alarms, metrics, dashboard", "dashboard"),
}


def read_prices(path: Path = MODULE / "prices.yaml") -> Prices:
    """Return the price table with the usage that it supposes."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def month_cost(plan: dict[str, Any], table: Prices) -> dict[str, float]:
    """Return US dollars a month by line; raise SystemExit where the plan has a resource without a price."""
    prices, usage, resources = (
        table["prices"],
        table["usage"],
        [one for one in planned(plan) if one["mode"] == "managed"],
    )
    if unpriced := sorted({one["type"] for one in resources} - FREE - PRICED.keys()):
        raise SystemExit(
            f"expected a price of each resource; {', '.join(unpriced)} has none in terraform/operate/cost.py"
        )
    tasks = {one["index"]: one["values"] for one in resources if one["type"] == "aws_ecs_task_definition"}
    lines = {"storage, logs": sum(usage[what] * prices[what] for what in ("efs_gb", "s3_gb", "ecr_gb", "log_gb"))}
    for one in resources:
        for line, usd in PRICED[one["type"]](one, tasks, prices, usage) if one["type"] in PRICED else ():
            lines[line] = lines.get(line, 0.0) + usd
    return {line: round(usd, 2) for line, usd in sorted(lines.items(), key=lambda item: -item[1]) if usd}


def check_agreed(profile: str, usd: float, table: Prices) -> None:
    """Raise SystemExit where a month costs over 10 % more than agreed, or what was agreed has no note."""
    agreed = table["agreed"][profile]
    if not agreed["note"]:
        raise SystemExit(f"expected a note on what was agreed for {profile} in terraform/prices.yaml; it is empty")
    if usd > LIMIT * agreed["usd"]:
        raise SystemExit(
            f"expected at most {LIMIT * agreed['usd']:.0f} dollars a month of {profile}, 10 % over the {agreed['usd']} agreed; "
            f"got {usd:.0f}. Raise agreed.{profile}.usd in terraform/prices.yaml, with a note that says why"
        )


def as_table(costs: dict[str, dict[str, float]]) -> str:
    """Return costs by profile as the table of docs/aws.md."""
    lines = sorted({line for one in costs.values() for line in one}, key=lambda line: -costs["prod"].get(line, 0))
    rows = [[line, *(f"{one.get(line, 0):.2f}" for one in costs.values())] for line in lines]
    rows.append(["**together**", *(f"**{sum(one.values()):.2f}**" for one in costs.values())])
    head = [["US dollars a month", *costs], ["---", *["---:"] * len(costs)]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*head, *rows])


def main() -> None:
    """Print what a month costs by a plan of a profile."""
    parser = argparse.ArgumentParser(prog="python -m terraform.operate.cost", description=main.__doc__)
    parser.add_argument("plan", type=Path, help="what `terraform show -json` printed of a plan")
    given = parser.parse_args()
    plan, table = json.loads(given.plan.read_text(encoding="utf-8")), read_prices()
    profile, costs = plan["variables"]["profile"]["value"], month_cost(plan, table)
    for line, usd in costs.items():
        print(f"{usd:8.2f}  {line}")
    print(f"{sum(costs.values()):8.2f}  together, {profile}, list prices of {table['date']}")
    check_agreed(profile, sum(costs.values()), table)


if __name__ == "__main__":
    sys.exit(main())

"""Proof of the module without an account: form, rules on a mocked provider, an apply on moto's server, costs, drift, checkov."""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from terraform.operate import cost, drift, moto_server
from terraform.operate.workspace import MODULE, PLAN, Terraform, copy_module

ROOT = MODULE.parent
BUILD = ROOT / "build/terraform"
CHECKOV = ROOT / "build/checkov/bin/checkov"
ENVIRONMENTS = {"lean": "dev", "prod": "prod"}
DOCS = ROOT / "docs/aws.md"


def copy_to(name: str, environment: dict[str, str] | None = None) -> Terraform:
    """Return Terraform in a fresh copy of the module, initialised."""
    shutil.rmtree(BUILD / name, ignore_errors=True)
    terraform = Terraform(copy_module(BUILD / name), environment or {})
    terraform.init()
    return terraform


def prove_rules() -> str:
    """``fmt``, ``validate`` and ``terraform test``: every resource, both profiles, a mocked provider."""
    Terraform(MODULE, {}).call("fmt", "-check", "-recursive", "-diff")
    terraform = copy_to("rules")
    terraform.call("validate")
    done = terraform.call("test", "-no-color", allowed=(0, 1))
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return f"formatted, valid; {done.stdout.strip().splitlines()[-1]}"


def prove_checkov() -> str:
    """Checkov's findings, each skip of which stands in its resource, with a reason."""
    command = [str(CHECKOV), "--config-file", str(MODULE / ".checkov.yaml"), "-d", str(MODULE), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout.startswith(("{", "[")):
        raise SystemExit(f"checkov ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    report = json.loads(done.stdout)
    failed = [f"{one['check_id']} {one['resource']}: {one['check_name']}" for one in report["results"]["failed_checks"]]
    if failed:
        raise SystemExit("checkov:\n  " + "\n  ".join(failed))
    return f"{report['summary']['passed']} checks passed"


def unexpected(plan: dict[str, Any]) -> list[str]:
    """Return the changes of a plan but for attributes that moto forgets by name, where it gives nothing in their place."""
    kinds = {one["address"]: one["type"] for one in plan["resource_changes"]}
    forgotten = moto_server.FORGOTTEN
    return [
        f"{address}: {attribute} is {before!r}, and Terraform says {after!r}"
        for address, attribute, before, after in drift.changes(plan)
        if (kind := (kinds[address], attribute)) not in forgotten or before != forgotten[kind]
    ]


def deploy(address: str, outputs: dict[str, Any]) -> None:
    """Do as delivery does: register a revision with another image, run it, and give the canary some weight."""
    ecs, elb = (moto_server.client(address, name) for name in ("ecs", "elbv2"))
    there = ecs.describe_task_definition(taskDefinition=outputs["task_families"]["service"])["taskDefinition"]
    container = there["containerDefinitions"][0]
    container["image"] = container["image"].rpartition("@")[0] + f"@sha256:{'c' * 64}"
    given = {
        name: there[name]
        for name in ("family", "executionRoleArn", "taskRoleArn", "networkMode", "cpu", "memory", "volumes")
    }
    made = ecs.register_task_definition(**given, containerDefinitions=[container], requiresCompatibilities=["FARGATE"])
    arn = made["taskDefinition"]["taskDefinitionArn"]
    for name in ("stable", "canary"):
        ecs.update_service(cluster=outputs["cluster"], service=outputs["services"][name], taskDefinition=arn)
    weights = zip((95, 5), ("stable", "canary"), strict=True)
    groups = [{"TargetGroupArn": outputs["target_groups"][name], "Weight": weight} for weight, name in weights]
    forward = {"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}
    elb.modify_listener(ListenerArn=outputs["listener_arn"], DefaultActions=[forward])


def prove_drift(address: str, outputs: dict[str, Any], plan: Callable[[], dict[str, Any]]) -> None:
    """Change two things by hand and expect both by name."""
    s3, rds = (moto_server.client(address, name) for name in ("s3", "rds"))
    s3.put_bucket_versioning(Bucket=outputs["buckets"]["store"], VersioningConfiguration={"Status": "Suspended"})
    database = outputs["cluster"]
    rds.modify_db_instance(DBInstanceIdentifier=database, BackupRetentionPeriod=1)
    named = "\n".join(unexpected(plan()))
    for wanted in (
        'aws_s3_bucket_versioning.this["store"]: versioning_configuration[0].status',
        "aws_db_instance.this: backup_retention_period",
    ):
        if wanted not in named:
            raise SystemExit(f"expected {wanted} among what was changed by hand; got\n{named or 'nothing'}")


def prove_lock(address: str) -> None:
    """Expect a second apply to be refused while a first one holds the state's lock in S3."""
    s3, key = moto_server.client(address, "s3"), "taxi/lock.tfstate"
    s3.create_bucket(Bucket="taxi-state")
    shutil.rmtree(BUILD / "lock", ignore_errors=True)
    folder = BUILD / "lock"
    folder.mkdir(parents=True)
    lines = f'bucket = "taxi-state"\n key = "{key}"\n region = "us-east-1"\n use_lockfile = true'
    (folder / "main.tf").write_text(
        f'terraform {{\n backend "s3" {{\n {lines}\n }}\n}}\nresource "terraform_data" "slow" {{\n'
        ' provisioner "local-exec" {\n  command = "sleep 8"\n }\n}\n'
    )
    terraform = Terraform(folder, moto_server.environment(address))
    terraform.call("init", "-input=false")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(terraform.call, "apply", "-auto-approve", "-input=false")
        deadline = time.monotonic() + 60
        while not s3.list_objects_v2(Bucket="taxi-state", Prefix=f"{key}.tflock").get("Contents"):
            if time.monotonic() > deadline:
                raise SystemExit("expected the first apply to take the lock within 60 s")
            time.sleep(0.1)
        second = terraform.call("apply", "-auto-approve", "-input=false", allowed=(0, 1))
        first.result()
    if not second.returncode or "Error acquiring the state lock" not in second.stderr:
        raise SystemExit(f"expected the second of two applies to be refused; got {second.stdout}{second.stderr}")


def prove_costs(plans: dict[str, dict[str, Any]]) -> str:
    """Expect docs/aws.md to have the table that the plans give, within what was agreed."""
    prices = cost.read_prices()
    costs = {profile: cost.month_cost(plan, prices) for profile, plan in plans.items()}
    for profile, lines in costs.items():
        cost.check_agreed(profile, sum(lines.values()), prices)
    if (table := cost.as_table(costs)) not in DOCS.read_text(encoding="utf-8"):
        raise SystemExit(f"expected this table in docs/aws.md:\n{table}")
    return ", ".join(f"{profile} {sum(lines.values()):.0f}" for profile, lines in costs.items())


def prove_apply() -> str:
    """Apply the prod profile on moto; nothing is left to change, also after a delivery; what is changed by hand is named."""
    address = moto_server.start()
    zone = moto_server.prepare(address, "taxi.example.org")
    given = {
        profile: [f"-var-file=environments/{name}.tfvars", *moto_server.variables(zone)]
        for profile, name in ENVIRONMENTS.items()
    }
    terraform = copy_to("apply", environment=moto_server.environment(address))
    plans = {"lean": terraform.plan(*given["lean"])}
    for name in moto_server.UNKNOWN_FILES:
        (terraform.folder / name).unlink()
    costs = prove_costs(plans | {"prod": terraform.plan(*given["prod"])})
    with ThreadPoolExecutor(1) as pool:
        locking = pool.submit(prove_lock, address)
        terraform.call("apply", "-input=false", "-parallelism=20", PLAN)
        locking.result()
    outputs = terraform.outputs()
    deploy(address, outputs)
    # one plan for both: a delivery touches nothing that Terraform looks at, so what an apply had left would still be there
    if lines := unexpected(terraform.plan(*given["prod"])):
        raise SystemExit("expected no change after an apply and a delivery; got\n  " + "\n  ".join(lines))
    prove_drift(address, outputs, lambda: terraform.plan(*given["prod"]))
    return f"applied, delivered, no change left; drift named; second apply refused; $ a month: {costs}"


PROOFS = {"rules": prove_rules, "checkov": prove_checkov, "apply": prove_apply}


def _timed(name: str) -> str | None:
    began = time.monotonic()
    try:
        said, failed = PROOFS[name](), False
    except SystemExit as error:
        said, failed = str(error), True
    print(f"{'FAILED' if failed else 'proved'} {name} in {time.monotonic() - began:.0f} s: {said}", flush=True)
    return name if failed else None


def main() -> int:
    """Prove the module; the apply waits most of its time, the others run beside it."""
    parser = argparse.ArgumentParser(prog="python -m terraform.operate.prove", description=main.__doc__)
    parser.add_argument("proofs", nargs="*", choices=[*PROOFS, []], help="default: all")
    names = parser.parse_args().proofs or list(PROOFS)
    with ThreadPoolExecutor(2) as pool:
        failed = [name for name in pool.map(_timed, sorted(names, key=lambda name: name != "apply")) if name]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

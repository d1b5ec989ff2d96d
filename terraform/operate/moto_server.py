"""Stand-in for AWS: moto's server, and the environment in which Terraform and boto3 use it."""

import json
import logging
import os
from typing import Any

import boto3

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# files whose resources moto does not have; `terraform test` checks them with a mocked provider
UNKNOWN_FILES = {
    "scaling.tf": "moto has no list_tags_for_resource of Application Auto Scaling",
    "budget.tf": "moto has no list_tags_for_resource of Budgets, and no anomaly monitors",
}

# what moto gives in the place of attributes that it forgets; any other value of them, and any other attribute, fails the proof
FORGOTTEN: dict[tuple[str, str], Any] = {
    ("aws_vpc_security_group_ingress_rule", "description"): None,
    ("aws_vpc_security_group_egress_rule", "description"): None,
    ("aws_secretsmanager_secret_rotation", "rotation_rules"): [],
    ("aws_db_parameter_group", "parameter"): [],
    ("aws_ecs_service", "availability_zone_rebalancing"): "",
    ("aws_ecs_service", "health_check_grace_period_seconds"): 0,
}


def start() -> str:
    """Start moto's server on a free port, until this process ends; return its address."""
    # AWS's own policies, as ReadOnlyAccess, are read when moto is imported
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def environment(address: str) -> dict[str, str]:
    """Return the variables with which AWS's clients speak to the server."""
    return CREDENTIALS | {"AWS_ENDPOINT_URL": address}


def client(address: str, service: str) -> Any:
    """Return boto3's client of a service of the server."""
    return boto3.client(
        service, endpoint_url=address, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )  # fmt: skip


def prepare(address: str, domain: str) -> str:
    """Make what an account has before the first apply, a hosted zone; return its id."""
    zone = client(address, "route53").create_hosted_zone(Name=domain, CallerReference=domain)["HostedZone"]
    return zone["Id"].rpartition("/")[2]


def variables(zone: str) -> list[str]:
    """Return the options that replace what an environment's file has as examples."""
    digests = {name: f"sha256:{digit * 64}" for name, digit in (("service", "a"), ("jobs", "b"))}
    return ["-var", f"zone_id={zone}", "-var", f"image_digests={json.dumps(digests)}"]

"""The dry walk's reading of what Terraform made, on moto; the walk itself is ``make cloud-demo``."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from benchmarks.cloud_demo import Cloud, Failed, check_bytes, define_task
from tests.support.postgres import Postgres

REGION = {"region_name": "us-east-1"}


class Mocked(Cloud):
    """A cloud whose clients speak to moto in this process."""

    def client(self, service: str) -> Any:
        return boto3.client(service, **REGION)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield Mocked("http://aws", tmp_path, Postgres(tmp_path, 5555), "registry")


def test_a_task_gets_what_its_definition_says_with_the_database_here_and_the_secrets_values(cloud: Mocked) -> None:
    secrets, rds, ecs = (cloud.client(name) for name in ("secretsmanager", "rds", "ecs"))
    key = secrets.create_secret(Name="api-keys", SecretString="key")["ARN"]
    pair = secrets.create_secret(Name="database", SecretString=json.dumps({"password": "p"}))["ARN"]
    instance = {"DBInstanceClass": "db.t4g.micro", "Engine": "postgres", "AllocatedStorage": 20}
    made = rds.create_db_instance(
        DBInstanceIdentifier="taxi", MasterUsername="taxi", MasterUserPassword="pw-of-8+", **instance
    )
    address = f"postgresql://taxi@{made['DBInstance']['Endpoint']['Address']}:5432/taxi?sslmode=require"
    container = {
        "name": "service",
        "image": "ecr/service@sha256:1",
        "memory": 512,
        "command": ["taxi", "serve"],
        "environment": [{"name": "TAXI_PREDICTIONS", "value": address}, {"name": "TAXI_DATA", "value": "/data"}],
        "secrets": [
            {"name": "TAXI_API_KEYS", "valueFrom": key},
            {"name": "PGPASSWORD", "valueFrom": f"{pair}:password::"},
        ],
    }
    ecs.register_task_definition(family="taxi-dev-service", containerDefinitions=[container])
    cloud.outputs = {"task_families": {"service": "taxi-dev-service"}}

    task = define_task(cloud, "service")

    assert task.environment == {
        "TAXI_PREDICTIONS": "postgresql://taxi@127.0.0.1:5555/taxi?sslmode=require",
        "TAXI_DATA": "/data",
        "TAXI_API_KEYS": "key",
        "PGPASSWORD": "p",
    }
    assert (task.command, task.image) == (["taxi", "serve"], "ecr/service@sha256:1")


def test_a_trail_that_ends_at_other_bytes_than_those_in_s3_fails(cloud: Mocked) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="store")
    s3.put_object(Bucket="store", Key="published/green.parquet", Body=b"trips")
    cloud.outputs = {"buckets": {"store": "store"}}
    digest = "e5ed2cd9d2cb5fd4ad8d0ab1b2f2ba96c7ad0ea0d8a1e7c8c2a3f7ccb34e5fbd"

    with pytest.raises(Failed, match="expected a trail that ends at bytes"):
        check_bytes(cloud, {"verified": True, "raw": [digest]})

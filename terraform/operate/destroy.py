"""Guard of ``terraform destroy``: refuses without a copy of the data that was checked file by file against what is there."""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3

from taxi.operations.backup import MANIFEST, manifest_faults, write_manifest
from terraform.operate.workspace import MODULE, Terraform

DUMPS = ("database/mlflow.dump", "database/taxi.dump")
MAGIC = b"PGDMP"  # with which an archive of pg_dump begins
KEPT = ("artifacts", "store", "records")
OLDEST = timedelta(hours=24)


def _check_manifest(folder: Path, manifest: dict[str, Any], environment: str) -> Iterator[str]:
    if manifest["environment"] != environment:
        yield f"expected a copy of {environment}; got one of {manifest['environment']}"
    if (age := datetime.now(UTC) - datetime.fromisoformat(manifest["at"])) > OLDEST:
        yield f"expected a copy of the last 24 hours; got one of {manifest['at']}, {age.days} days old"
    yield from manifest_faults(folder, manifest["files"])


def _check_database(folder: Path) -> Iterator[str]:
    for name in DUMPS:
        if not (folder / name).is_file() or not (folder / name).read_bytes().startswith(MAGIC):
            yield f"expected an archive of pg_dump --format=custom at {name}"
    if not any((folder / "data").rglob("*.parquet")):
        yield "expected the jobs' TAXI_DATA at data/, with its months"


def _check_buckets(folder: Path, s3: Any, buckets: dict[str, str]) -> Iterator[str]:
    for kind in KEPT:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=buckets[kind]):
            for one in page.get("Contents", []):
                copy = folder / "buckets" / kind / one["Key"]
                if not copy.is_file() or copy.stat().st_size != one["Size"]:
                    yield f"s3://{buckets[kind]}/{one['Key']} is not in the copy with its {one['Size']} bytes"


def faults_of(folder: Path, environment: str, s3: Any, buckets: dict[str, str]) -> list[str]:
    """Return why a copy is none of this environment; nothing where it holds databases, jobs' data and every object of the buckets."""
    path = folder / MANIFEST
    if not path.is_file():
        return [
            f"expected {MANIFEST} in {folder}: python -m terraform.operate.destroy manifest {folder} --environment {environment}"
        ]
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        faults = list(_check_manifest(folder, manifest, environment))
    except (ValueError, KeyError, TypeError) as error:
        return [f"expected a manifest at {path}, with environment, at and files; got {error!r}"]
    return [*faults, *_check_database(folder), *_check_buckets(folder, s3, buckets)]


def main() -> int:
    """Write the manifest of a copy, or destroy an environment whose copy is whole."""
    parser = argparse.ArgumentParser(prog="python -m terraform.operate.destroy", description=main.__doc__)
    parser.add_argument("what", choices=["manifest", "check", "destroy"])
    parser.add_argument("copy", type=Path)
    parser.add_argument("--environment", required=True, choices=["dev", "staging", "prod"])
    parser.add_argument("--folder", type=Path, default=MODULE, help="initialised folder of the module")
    given = parser.parse_args()
    if given.what == "manifest":
        print(write_manifest(given.copy, given.environment))
        return 0
    terraform = Terraform(given.folder, {})
    outputs = terraform.outputs()
    if not outputs["cluster"].endswith(f"-{given.environment}"):
        raise SystemExit(f"expected the state of {given.environment}; got that of {outputs['cluster']}")
    if faults := faults_of(given.copy, given.environment, boto3.client("s3"), outputs["buckets"]):
        print("refused, the copy is not whole:", *faults, sep="\n  ", file=sys.stderr)
        return 4
    print(f"the copy at {given.copy} is whole")
    if given.what == "destroy":
        answer = input(f"Type {given.environment} to destroy it: ")
        if answer != given.environment:
            raise SystemExit("not destroyed")
        unlocked = [
            f"-var-file=environments/{given.environment}.tfvars",
            "-var",
            "deletion_protection=false",
            "-auto-approve",
        ]
        terraform.call("apply", "-input=false", *unlocked)
        print(terraform.call("destroy", "-input=false", *unlocked).stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

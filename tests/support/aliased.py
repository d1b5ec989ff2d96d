"""A registry of versions that have tags and no files: three champions, one after another."""

import json

from taxi.params import load_params
from taxi.registry.aliases import follow_tags
from taxi.registry.mlflow_client import connect

PARAMS = load_params()
STEPS = (
    "set_registered_model_tag", "set_model_version_tag", "set_registered_model_alias", "delete_registered_model_tag",
    "delete_registered_model_alias", "copy_model_version",
)  # fmt: skip
REPORTS = {"05-compare.html": "ab" * 32}


def register(uri: str, trained_to: str, promoted: bool = True, **tags: str) -> int:
    """Register a version with its tags alone; its files play no part here."""
    client = connect(uri)
    role = {"role": "winner", "promoted_in": trained_to} if promoted else {"role": "challenger"}
    known = {"fingerprint": trained_to, "trained_from": "2022-01", "trained_to": trained_to, "synthetic": "false"}
    code = {"git_commit": "abc", "git_dirty": "false", "metric.coverage80": "0.8", "reports": json.dumps(REPORTS)}
    return int(client.create_model_version("taxi-green", "s3://nowhere/model", tags=known | role | code | tags).version)


def fill(uri: str) -> None:
    """Make three champions, one after another, with a challenger beside the last."""
    connect(uri).create_registered_model("taxi-green")
    for month in ("2023-01", "2023-02", "2023-03"):
        register(uri, month)
        follow_tags(uri, "green", f"green {month} was run")
    register(uri, "2023-03", promoted=False)
    follow_tags(uri, "green", "green 2023-03 was run")


def aliases(uri: str, name: str = "taxi-green") -> dict[str, int]:
    return {alias: int(number) for alias, number in connect(uri).get_registered_model(name).aliases.items()}


def journal(uri: str, name: str = "taxi-green") -> str | None:
    return connect(uri).get_registered_model(name).tags.get("journal")

"""A registry of versions that have tags and no files: three champions, one after another."""

import json

from taxi.params import load_params
from taxi.registry.aliases import follow_tags
from taxi.registry.events import Event
from taxi.registry.mlflow_client import connect
from taxi.registry.versions import read_registered

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


OLDER = (
    '{"aliases":{"champion":[null,"1"]},"at":"2023-02-09T08:00:00.029517Z","by":"taxi run","copied":null,"tags":{},"why":"green 2023-01 was run"}',
    '{"aliases":{"champion":["1","2"]},"at":"2023-03-09T08:00:00.220040Z","by":"taxi run","copied":null,"tags":{},"why":"green 2023-02 was run"}',
    '{"aliases":{"champion":["2","3"]},"at":"2023-04-09T08:00:00.075354Z","by":"taxi run","copied":null,"tags":{},"why":"green 2023-03 was run"}',
    '{"aliases":{"challenger":[null,"4"]},"at":"2023-04-09T08:00:01.894240Z","by":"taxi run","copied":null,"tags":{},"why":"green 2023-03 was run"}',
)
OLDER_ROLLBACK = (
    '{"aliases":{"champion":["3","2"]},"at":"2023-05-09T08:00:00.033723Z","by":"ada","copied":null,"tags":{"3":{"rolled_back":'
    '[null,"{\\"at\\": \\"2023-05-09T08:00:00.000000Z\\", \\"by\\": \\"ada\\", \\"why\\": \\"bad\\", \\"to\\": 2}"]}},"why":"rollback to 2: bad"}'
)
OLDER_ENTRY = (
    '{"aliases":{"champion":[null,"copy"]},"at":"2023-05-09T08:00:00.513561Z","by":"ada","copied":"models:/taxi-green/3","tags":'
    '{"copy":{"released_at":[null,"2023-05-09T08:00:00.513561Z"],"released_by":[null,"ada"],"released_from":[null,"green/3"]}},'
    '"why":"green/3 entered from dev"}'
)


def make_older(uri: str) -> None:
    """Give the filled registry the tags that taxi wrote before there were events, instead of its own."""
    client = connect(uri)
    for tag in client.get_registered_model("taxi-green").tags:
        client.delete_registered_model_tag("taxi-green", tag)
    for text in OLDER:
        keep_older(uri, text)


def keep_older(uri: str, text: str) -> None:
    connect(uri).set_registered_model_tag("taxi-green", f"moved.{json.loads(text)['at']}", text)


def aliases(uri: str, name: str = "taxi-green") -> dict[str, int]:
    return {alias: int(number) for alias, number in connect(uri).get_registered_model(name).aliases.items()}


def history(uri: str, name: str = "taxi-green") -> list[Event]:
    return list(read_registered(connect(uri), name).events.values())

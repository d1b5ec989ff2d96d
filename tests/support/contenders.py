"""Processes that contend for one registry: they move its aliases, approve, and run the same months; each keeps what it was told."""

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import monthly
from taxi.config import Settings
from taxi.data.acceptance import Acceptance
from taxi.errors import Refused, UsageError
from taxi.files import append_json, read_json, write_json
from taxi.registry.aliases import approve, follow_tags, roll_back
from taxi.registry.mlflow_client import changing
from taxi.registry.release import promote
from taxi.registry.versions import find_version, versions
from taxi.training.step_result import CompareResult
from tests.support.aliased import PARAMS, REPORTS, register
from tests.support.month_results import make_compare
from tests.support.registered import SCORES

ASKING = PARAMS.model_copy(update={"release": PARAMS.release.model_copy(update={"approval": ["prod"]})})


def go_back(uri: str, by: str, draw: random.Random) -> str:
    roll_back(uri, "green", by, by)
    return "rollback"


def go_to(uri: str, by: str, draw: random.Random) -> str:
    roll_back(uri, "green", by, by, to=draw.choice(versions(uri, "green")).number)
    return "rollback"


def enter_staging(uri: str, by: str, draw: random.Random) -> str:
    promote(uri, find_version(uri, "green/champion"), "staging", PARAMS, {}, by)
    return "promote"


def let_in(uri: str, by: str, draw: random.Random) -> str:
    wanted = draw.choice(versions(uri, "green"))
    ((report, sha256),) = REPORTS.items()
    approve(uri, wanted, "prod", report, sha256, by, ASKING)
    return "approve"


def run_a_month(uri: str, by: str, draw: random.Random) -> str:
    """Register a month's version unless it is there, as a run does; all contenders run the same few months."""
    month = draw.choice(["2024-01", "2024-02", "2024-03"])
    with changing(uri, "green") as client:
        if month not in {version.tags["fingerprint"] for version in versions(uri, "green")}:
            register(uri, month)
        follow_tags(uri, "green", by, by, client=client)
    return "run"


MOVES: tuple[Callable[[str, str, random.Random], str], ...] = (go_back, go_to, enter_staging, let_in, run_a_month)


def move_often(uri: str, kept: Path, who: int, times: int) -> None:
    """Do so many moves; each is of another person, so that it is known again in the history, and none is asked for twice."""
    draw = random.Random(who)
    for number in range(times):
        by, move = f"person {who}.{number}", MOVES[(who + number) % len(MOVES)]
        try:
            told: dict[str, Any] = {"by": by, "did": move(uri, by, draw), "refused": None}
        except (Refused, UsageError) as error:
            told = {"by": by, "did": move.__name__, "refused": str(error)}
        append_json(kept, [told])


# --- A month as its flow does it under the lock, with notebooks and Prefect taken away: what is trained is counted.


def _train(settings: Settings, trained: Path, killed: bool) -> CompareResult:
    append_json(trained, [{"by": str(settings.data)}])
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    reports = settings.month("green", "2023-01").reports
    write_json(reports / "05-compare.json", make_compare(SCORES, True))
    return CompareResult(**read_json(reports / "05-compare.json"))


def run_month(settings: Settings, place: str, trained: Path, killed: bool) -> None:
    """Run a month up to its result."""
    monitor = SimpleNamespace(metrics=None, alarms=[], verdict="first", checks=[])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plan_month", "register"):
            patch.setattr(monthly, name, getattr(monthly, name).fn)
        patch.setattr(monthly, "_watch_month", lambda *_: monitor)
        patch.setattr(monthly, "_train_month", lambda *_: _train(settings, trained, killed))
        accepted = Acceptance(**read_json(settings.month("green", "2023-01").acceptance))
        monthly._plan_and_make(settings, "2023-01", PARAMS, accepted, "new", monthly._Clock(), place)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

"""kill -9 at any moment: nothing half-written, nothing left running, and the rerun ends where an undisturbed run does."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from taxi.data.synthetic import write_sample
from taxi.files import STAGING_MARK, sha256_file, sha256_tree
from taxi.registry.aliases import roll_back
from taxi.registry.versions import aliased_version, champion_now, versions
from tests.support.aliased import fill
from tests.support.automation import SMALL, make_checkout, marked_processes
from tests.support.campaign import at_scale
from tests.support.databases import give_prefect_home
from tests.support.worlds import Forked, World

KILLS = at_scale(1, 20)
MONTHS = ["2024-01", "2024-02"][:KILLS]  # one month trains and promotes; where more is asked, a shift follows
pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(at_scale(1200, 3600))]


def start(place: Path, prefect: str) -> Forked:
    server = at_scale({"PREFECT_API_URL": prefect}, {"PREFECT_HOME": str(place.parent / "prefect")})
    words = ["backfill", "--service", "green", "--from", MONTHS[0], "--to", MONTHS[-1], "--no-version", "--json"]
    world = World(place, server | {"TAXI_SOURCE": str(place.parent / "source")}, place.parent / "checkout")
    return world.begin(place, *words)


def finish(place: Path, prefect: str) -> dict[str, Any]:
    assert start(place, prefect).wait(300) == 0, (place / "err").read_text()
    return dict(json.loads((place / "out").read_text().splitlines()[-1]))


def check_nothing_is_half_written(place: Path) -> None:
    for path in (one for one in place.rglob("*") if one.is_file()):
        if STAGING_MARK in str(path) or path.name.startswith(".") or "mlflow" in str(path.relative_to(place)):
            continue
        if path.suffix == ".parquet":
            parquet.read_table(path)
        elif path.suffix in (".json", ".ipynb"):
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".html":
            assert "</html>" in path.read_text(encoding="utf-8")[-20:], path


def outcome(place: Path, answer: dict[str, Any]) -> dict[str, Any]:
    keep = ("month", "rows", "champion", "challenger", "promoted", "reason", "verdict", "alarms")
    data = {kind: sha256_tree(place / "data" / kind) for kind in ("trips", "quarantine", "models")}
    raw = {path.name: sha256_file(path) for path in sorted((place / "data" / "raw").rglob("*.parquet"))}
    return {"data": data, "raw": raw, "months": [{name: one[name] for name in keep} for one in answer["months"]]}


def test_kill_9_at_random_moments_leaves_nothing_behind_and_changes_nothing(tmp_path: Path, prefect: str) -> None:
    write_sample(tmp_path / "source", "green", MONTHS, rows=2000, shift_month="2024-02")
    make_checkout(
        tmp_path / "checkout", {"model": at_scale(SMALL | {"planned": False}, SMALL)}, lean=at_scale(True, False)
    )
    give_prefect_home(tmp_path / "prefect")
    calm, shaken = tmp_path / "calm", tmp_path / "shaken"
    begun = time.monotonic()
    expected = outcome(calm, finish(calm, prefect))
    whole = time.monotonic() - begun
    luck = random.Random(7)

    for kill in range(KILLS):
        process = start(shaken, prefect)
        time.sleep(luck.uniform(0.1, 0.9) * whole)
        os.killpg(process.pid, at_scale(signal.SIGKILL, signal.SIGKILL if kill % 4 else signal.SIGTERM))
        process.wait(30)  # asked to end, it does not wait for a server that was ended too
        assert "Traceback" not in (shaken / "err").read_text()
        check_nothing_is_half_written(shaken)
    answer = finish(shaken, prefect)

    assert outcome(shaken, answer) == expected
    assert marked_processes(str(shaken / "data")) == []
    assert list(shaken.rglob(f"*{STAGING_MARK}*")) == []


def test_a_rollback_killed_at_random_moments_and_typed_again_goes_back_once(tmp_path: Path) -> None:
    world, luck = World(tmp_path), random.Random(8)
    uri = world.environment["MLFLOW_TRACKING_URI"]
    fill(uri)
    words = ["rollback", "--service", "green", "--by", "ada", "--reason"]
    begun = time.monotonic()
    world.answer(*words, "a trial")
    whole = time.monotonic() - begun

    for kill in range(at_scale(1, 20)):
        roll_back(uri, "green", "bob", f"it was right before kill {kill}", to=3)
        process = world.begin(tmp_path, *words, f"kill {kill}", "--json")
        time.sleep(luck.uniform(0.3, 1) * whole)
        process.kill()
        process.wait()
        told = (tmp_path / "out").is_file() and (tmp_path / "out").read_text()
        code, answer = (0, json.loads(told)) if told else world.answer(*words, f"kill {kill}")
        (tmp_path / "out").unlink(missing_ok=True)

        assert (code, answer["from"], answer["to"]) == (0, 3, 2)
        assert champion_now(uri, "green") == aliased_version(uri, "green", "champion")
        assert [version.number for version in versions(uri, "green") if version.in_use] == [1, 2]

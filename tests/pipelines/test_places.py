"""Commands where a place or an address is odd: nothing is made by who reads, no secret is shown, failures are one line in seconds."""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

from pipelines import cli, runtime
from pipelines.terminal import show_summary
from taxi.config import load_settings
from taxi.data.source import open_source
from taxi.errors import TaxiError, UsageError
from tests.support import faults
from tests.support.automation import make_checkout
from tests.support.postgres import free_port
from tests.support.receivers import closed_port
from tests.support.worlds import ROOT

CANARY = "c4nary-5f2c81e0aa"


class Ended(NamedTuple):
    code: int
    out: str
    err: str
    seconds: float


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout in an empty folder, with nothing set; what commands set is taken back."""
    with patch.dict(os.environ):
        for name in list(os.environ):
            if name.startswith(("TAXI_", "MLFLOW_TRACKING", "PREFECT_API")):
                del os.environ[name]
        monkeypatch.chdir(make_checkout(tmp_path / "checkout", {}))
        yield tmp_path / "checkout"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ended]]:
    """Run ``taxi`` in this process, with its own logging."""
    root = logging.getLogger()
    before = root.handlers[:]

    def run(*words: str) -> Ended:
        root.handlers.clear()
        monkeypatch.setattr(sys, "argv", ["taxi", *words])
        begun = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err, time.monotonic() - begun)

    yield run
    root.handlers[:] = before


READING = (
    "status",
    "lineage green/champion",
    "lineage 0123456789abcdef0123456789abcdef",
    "metrics show",
    "alarms list",
    "experiment report",
    "rollback --service green",
    "promote green/champion --to staging",
    "score --service green --month 2024-01 --out scores.parquet",
)


@pytest.mark.slow
@pytest.mark.parametrize("there", ["nothing", "sqlite:///kept/mlflow.db?timeout=30"])
def test_who_only_reads_makes_nothing(there: str, place: Path, command: Callable[..., Ended]) -> None:
    if there != "nothing":
        os.environ.update(MLFLOW_TRACKING_URI=there, TAXI_PREDICTIONS="sqlite:///kept/p.db?timeout=30")
    before = sorted(place.rglob("*"))

    ended = {words: command(*words.split()) for words in READING}

    assert sorted(place.rglob("*")) == before
    codes = {"status": 0, "metrics show": 0, "alarms list": 0, "rollback --service green": 4}
    assert {words: one.code for words, one in ended.items() if words in codes} == codes
    assert [words for words, one in ended.items() if one.code and len(one.err.splitlines()) != 1] == []


DOWN = (
    "status --service green",
    "run --service green --month 2024-01",
    "ingest --service green --month 2024-01",
    "retrain --service green --because x",
    "rollback --service green",
    "promote green/1 --to staging",
    "lineage green/1",
    "lineage 0123456789abcdef0123456789abcdef",
    "metrics collect",
    "metrics show",
    "metrics page",
    "alarms check --live",
    "alarms drill",
    "experiment report",
    "doctor",
)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2"])
def test_what_is_down_is_one_line_in_ten_seconds_and_shows_no_secret(
    scheme: str, place: Path, command: Callable[..., Ended]
) -> None:
    port = closed_port()
    database = f"postgresql+psycopg2://taxi:{CANARY}@127.0.0.1:{port}/taxi?password={CANARY}"
    os.environ.update(
        TAXI_SOURCE=f"http://reader:{CANARY}@127.0.0.1:{port}/tlc?sig={CANARY}",
        TAXI_PREDICTIONS=database,
        TAXI_METRICS=database,
        TAXI_ALARM_CHANNELS=f"json://user:{CANARY}@127.0.0.1:{port}/",
        MLFLOW_TRACKING_URI=f"{scheme}://taxi:{CANARY}@127.0.0.1:{port}/x?password={CANARY}",
        MLFLOW_TRACKING_PASSWORD=CANARY,
        PREFECT_API_URL=f"http://user:{CANARY}@127.0.0.1:{port}/api",
        AWS_SECRET_ACCESS_KEY=CANARY,
    )

    ended = {words: command(*words.split()) for words in DOWN}

    assert [words for words, one in ended.items() if one.code != 1] == []
    assert [words for words, one in ended.items() if CANARY in one.out + one.err] == []
    told = ("alarms drill", "doctor")  # which say it on stdout
    assert {
        words: one.err for words, one in ended.items() if len(one.err.splitlines()) != 1 and words not in told
    } == {}
    assert {words: one.seconds for words, one in ended.items() if one.seconds > 12} == {}
    assert [path for path in place.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()] == []


def test_a_source_may_have_a_query_which_stays_at_the_end_and_is_not_kept(tmp_path: Path) -> None:
    with faults.serve({f"/tlc/misc/x.csv?sig={CANARY}": b"LocationID\n"}) as site:
        source = open_source(f"{site.base}/tlc?sig={CANARY}")

        assert source.ask("misc/x.csv")["size"] == 11
        assert source.address("misc/x.csv") == f"{site.base}/tlc/misc/x.csv"


def test_a_process_without_home_and_user_gets_both(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        os.environ.pop(name, None)
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999)

    runtime.provide_user()

    assert (os.environ["HOME"], os.environ["LOGNAME"]) == (str(place / "data" / "home"), "uid-3999999")
    assert not (place / "data").exists()


def test_a_home_that_is_there_is_kept(place: Path, tmp_path: Path) -> None:
    os.environ["HOME"] = str(tmp_path)

    runtime.provide_user()

    assert os.environ["HOME"] == str(tmp_path)


def test_prefects_home_is_made_with_the_folders_above_it_and_counts_from_where_it_was_said(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.environ["PREFECT_HOME"] = "no/such/place/prefect"

    runtime.make_prefect_home()

    assert (place / "no/such/place/prefect").is_dir()
    assert os.environ["PREFECT_HOME"] == str(place / "no/such/place/prefect")
    os.environ["PREFECT_HOME"] = str(place / "params.yaml" / "prefect")
    with pytest.raises(TaxiError, match=r"cannot make Prefect's home .*: Not a directory; set PREFECT_HOME"):
        runtime.make_prefect_home()


@pytest.mark.parametrize("name", ["a b", "it's", 'a"b', "a%41b", "a$(touch x)b", "a;b&c"])
def test_the_notebooks_lab_is_told_its_places_under_any_path(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "bin").mkdir()
    (root / "bin" / "taxi").write_text("#!/bin/sh\n")
    (root / "bin" / "taxi").chmod(0o755)
    environment = {**os.environ, "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}

    subprocess.run(["bash", "scripts/lab", "build/lab"], cwd=root, env=environment, check=True)
    shown = 'echo "$TAXI_DATA|$TAXI_REPORTS|$TAXI_SOURCE|$MLFLOW_TRACKING_URI"'
    told = subprocess.run(
        ["bash", "-c", f". build/lab/env && {shown}"], cwd=root, capture_output=True, text=True, check=True
    )

    lab = root / "build" / "lab"
    assert told.stdout.strip() == f"{lab}/data|{lab}/reports|{lab}/source|sqlite:///{lab}/mlflow.db"


def test_a_folder_whose_name_ends_a_sqlite_address_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_checkout(tmp_path / "what?", {}))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(UsageError, match=r"expected a folder without '\?' for a SQLite file"):
        load_settings()


def test_a_refused_month_points_to_its_own_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    month = {"service": "green", "champion": None, "challenger": None, "promoted": False, "verdict": None, "alarms": []}
    month |= {"rows": {"kept": 0, "quarantined": 3}, "reports": ["reports/green/2024-02/refused.html"]}
    refused = month | {"month": "2024-02", "status": "refused", "reason": "too few trips"}
    done = month | {"month": "2024-03", "status": "done", "reason": "no better", "reports": ["x.html"]}

    show_summary([refused, done], tmp_path)

    lines = capsys.readouterr().out.splitlines()
    assert lines[-4:] == [
        "2024-02: too few trips",
        "2024-03: no better",
        "Open reports/green/2024-02/refused.html",
        f"Open {tmp_path / 'index.html'}",
    ]


def test_a_prefect_server_that_is_down_is_told_before_anything_starts(
    place: Path, command: Callable[..., Ended]
) -> None:
    os.environ.update(PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api", TAXI_SOURCE=str(ROOT))

    ended = command("ingest", "--service", "green", "--month", "2024-01")

    assert ended.code == 1 and ended.seconds < 10
    assert "the Prefect server is not there" in ended.err and "PREFECT_API_URL" in ended.err

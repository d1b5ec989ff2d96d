"""Installations that share a registry: a month, or a retrain, is run by one of them, and the others take it up."""

import shutil
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pipelines import monthly
from taxi.config import Settings
from taxi.data.origin import read_origin
from taxi.files import remove, sha256_file, sha256_tree
from taxi.locks import LockLost
from taxi.models.model import DurationModel
from taxi.registry.lineage import check_origin
from taxi.registry.mlflow_client import RegistryError, connect
from taxi.registry.versions import versions
from taxi.runs.mlflow_run import seal_result, take_up_month
from taxi.training.plan import Plan, make_plan
from tests.support.month_results import write_origin
from tests.support.registered import MONTHS, record, settings_with_months, small_model
from tests.support.worlds import ROOT

MONTH = MONTHS[0]
PLAN: Plan = make_plan("green", MONTH, [], 12, None)
PRINT = f"print-{MONTH}"


@pytest.fixture(scope="module")
def model() -> DurationModel:
    return small_model()


@pytest.fixture
def first(tmp_path: Path, model: DurationModel) -> Settings:
    """An installation that has run a month and kept its result."""
    settings = settings_with_months(tmp_path / "first", model)
    pages = settings.month("green", MONTH).reports
    (pages / "03-monitor-evidently.html").write_text("drift")
    record(settings, MONTH)
    result = {
        "fingerprint": PRINT,
        "month": MONTH,
        "reports": [str(pages / "01-explore.html")],
        "seconds": {"fit": 9.0},
    }
    seal_result(settings, PLAN, PRINT, result)
    return settings


@pytest.fixture
def second(first: Settings, tmp_path: Path) -> Settings:
    """Another one, with data and reports of its own."""
    return replace(first, data=tmp_path / "second/data", reports=tmp_path / "second/reports")


def test_a_month_that_was_run_elsewhere_is_taken_up_with_its_pages_and_models(
    first: Settings, second: Settings
) -> None:
    ours, theirs = second.month("green", MONTH), first.month("green", MONTH)
    ours.reports.mkdir(parents=True)
    (ours.reports / "04-train.html").write_text("of an earlier run")

    result = take_up_month(second, PLAN, PRINT)

    assert result["reports"] == [str(ours.reports / "01-explore.html")]
    assert result["seconds"] == {"fit": 9.0}
    assert {page.name for page in ours.reports.iterdir()} == {page.name for page in theirs.reports.iterdir()}
    for role in ("challenger", "winner"):
        assert sha256_tree(ours.models / role) == sha256_tree(theirs.models / role)
    assert len(versions(second.tracking_uri, "green")) == 2


def test_the_trail_of_a_month_that_was_taken_up_leads_to_the_bytes_that_were_fetched_here(
    first: Settings, second: Settings
) -> None:
    shutil.copytree(first.data / "raw", second.data / "raw")
    here = second.month("green", MONTH)
    write_origin(here, sha256_file(here.raw), address="https://mirror.example/", fetched_at="2023-04-02T00:00:00+00:00")
    (found, *_) = versions(second.tracking_uri, "green")

    before = check_origin(found, MONTH, second)
    take_up_month(second, PLAN, PRINT)
    after = check_origin(found, MONTH, second)

    assert (before and before.status, after and after.status) == ("differs", "same")
    assert read_origin(here.sidecar).address == "https://mirror.example/"


def test_other_inputs_and_a_run_that_did_not_come_to_its_end_are_not_taken_up(
    first: Settings, second: Settings
) -> None:
    record(first, MONTHS[1])  # registered, and then it was killed

    assert take_up_month(second, PLAN, "print of other trips") is None
    assert take_up_month(second, PLAN, f"print-{MONTHS[1]}") is None


def test_a_result_that_was_changed_in_the_registry_is_not_taken_up(first: Settings, second: Settings) -> None:
    client = connect(first.tracking_uri)
    (run,) = client.search_runs(["1"], f"tags.fingerprint = '{PRINT}'")
    client.log_dict(run.info.run_id, {"month": MONTH, "reports": []}, "result/month.json")

    with pytest.raises(RegistryError, match=f"expected result/month.json of run {run.info.run_id} with sha256"):
        take_up_month(second, PLAN, PRINT)
    assert not second.month("green", MONTH).reports.exists()


def test_where_the_artifacts_are_out_of_reach_the_month_is_run(first: Settings, second: Settings) -> None:
    place = first.data.parent / "mlartifacts"
    shutil.copytree(place, place.with_name("aside"))
    remove(place)

    assert take_up_month(second, PLAN, PRINT) is None


@pytest.mark.parametrize(("losses", "ends"), [(2, "done"), (3, "lost")])
def test_a_month_whose_lock_is_lost_takes_it_again_and_not_for_ever(losses: int, ends: str) -> None:
    lost = iter([LockLost("lost")] * losses)

    def run_under_the_lock() -> str:
        for loss in lost:
            raise loss
        return "done"

    if ends == "done":
        assert monthly.keep_trying.copy()(run_under_the_lock) == "done"
    else:
        with pytest.raises(LockLost, match="lost"):
            monthly.keep_trying.copy()(run_under_the_lock)


class Guarded(BaseHTTPRequestHandler):
    """A registry that is there, and refuses every password."""

    def do_GET(self) -> None:
        code, body = (200, b"OK") if self.path == "/health" else (401, b"You are not authenticated")
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_wrong_password_of_the_registry_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monthly, "fetch", lambda *_: pytest.fail("it fetched first"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        registry = f"http://127.0.0.1:{server.server_port}"
        settings = Settings(ROOT, "unused", tmp_path / "data", tmp_path / "reports", registry)
        try:
            with pytest.raises(RegistryError, match="refused the user or his password: set MLFLOW_TRACKING_USERNAME"):
                monthly._run(settings, "green", MONTH, False)
        finally:
            server.shutdown()

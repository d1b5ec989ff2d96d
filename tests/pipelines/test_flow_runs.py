"""Flows begin again when something does not answer, under a worker; a command ends at once, with one line."""

import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml
from prefect.exceptions import TerminationSignal

from pipelines import flow_runs
from pipelines.flow_runs import is_transient, patient, tagged
from pipelines.runtime import prepare_reading
from taxi.data.download import Unreachable
from taxi.database import StoreDown
from taxi.errors import MonthRefused, TaxiError
from taxi.processes import warm_processes
from taxi.registry.mlflow_client import RegistryUnreachable
from tests.support.prediction_rows import wait_for
from tests.support.worlds import ROOT

ADDRESS = httpx.Request("POST", "http://prefect.example/api")
REFUSED = httpx.ConnectError("refused", request=ADDRESS)


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (Unreachable("the source did not answer"), True),
        (RegistryUnreachable("the registry did not answer"), True),
        (StoreDown("the store did not answer"), True),
        (REFUSED, True),
        (caused(RuntimeError("Failed to reach API"), REFUSED), True),
        (httpx.HTTPStatusError("", request=ADDRESS, response=httpx.Response(503)), True),
        (httpx.HTTPStatusError("", request=ADDRESS, response=httpx.Response(404)), False),
        (MonthRefused("too few trips"), False),
        (ValueError("a bug"), False),
    ],
)
def test_what_did_not_answer_is_transient_and_nothing_else(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


@pytest.fixture
def failing_twice(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A flow's body that fails at its first two attempts."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    attempts: list[int] = []

    def body() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise Unreachable("the source did not answer")
        return len(attempts)

    return body


def test_under_a_worker_a_flow_begins_again(failing_twice: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "0")

    assert patient(failing_twice)() == 3


def test_a_command_does_not(failing_twice: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)

    with pytest.raises(Unreachable):
        patient(failing_twice)()


def test_a_server_that_goes_during_a_run_is_one_explained_line() -> None:
    def flow() -> None:
        raise REFUSED

    with pytest.raises(TaxiError, match=r"Prefect's server at prefect.example no longer answers \(refused\)"):
        tagged(flow)()


@pytest.mark.parametrize(
    ("asked", "code"), [(TerminationSignal(signal.SIGTERM), 143), (KeyboardInterrupt(), 130)], ids=["TERM", "INT"]
)
def test_a_signal_that_ended_the_server_too_is_no_failure(
    asked: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_runs.logging, "disable", lambda: None)

    def flow() -> None:
        try:
            raise asked
        except BaseException:
            raise httpx.ConnectError("refused", request=ADDRESS)  # noqa: B904

    with pytest.raises(SystemExit) as ended:
        tagged(flow)()
    assert ended.value.code == code


def ended_with_us() -> httpx.ConnectError:
    """What Prefect's client says while it is told of our end, of a server that was ended too."""
    try:
        try:
            raise TerminationSignal(signal.SIGTERM)
        except TerminationSignal:
            raise httpx.ConnectError("All connection attempts failed", request=ADDRESS)  # noqa: B904
    except httpx.ConnectError as error:
        return error


def test_who_was_asked_to_end_waits_for_no_server_and_leaves_no_traceback() -> None:
    tagged(lambda: None)
    logger, told = logging.getLogger("prefect.flow_runs"), []
    for error in (ended_with_us(), ValueError("a bug")):
        raised = (type(error), error, error.__traceback__)
        told.append(bool(logger.filter(logger.makeRecord("", logging.ERROR, "", 0, "it failed", (), raised))))

    assert told == [False, True]
    assert not is_transient(ended_with_us())


def test_a_child_that_was_ended_and_not_waited_for_is_none_to_fork_from() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    wait_for(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")

    assert all(process.pid != child.pid for process in warm_processes())
    child.wait()


@pytest.mark.parametrize(("server", "retries"), [("http://127.0.0.1:4200/api", "7"), (None, "2")])
def test_a_server_is_waited_for_and_one_of_our_own_that_was_ended_with_us_is_not(
    server: str | None, retries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    monkeypatch.setattr(os, "environ", kept | ({"PREFECT_API_URL": server} if server else {}))

    prepare_reading()

    assert os.environ["PREFECT_CLIENT_MAX_RETRIES"] == retries


def test_deployments_wait_for_their_server_and_hold_no_lease_of_it() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]

    # a limit of Prefect's is a lease in the server's memory: a restart forgets it, and Prefect then ends the run
    assert [one["name"] for one in deployments if "concurrency_limit" in one] == []
    waits = {one["work_pool"]["job_variables"]["env"]["PREFECT_CLIENT_MAX_RETRIES"] for one in deployments}
    assert waits == {"7"}

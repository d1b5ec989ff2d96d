"""Flow runs: which process is behind each (one whose process is gone has crashed), and retry of what is transient."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import httpx
from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateType as OfType
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.exceptions import TerminationSignal
from prefect.states import Crashed
from tenacity import Retrying, before_sleep_log, retry_if_exception, stop_after_delay, wait_exponential

from pipelines.runtime import is_prepared, is_workers, prepare_process
from taxi.config import load_settings
from taxi.errors import NoAnswer, TaxiError
from taxi.files import LockHeld
from taxi.processes import lives_here, machine_mark

TAG, LABEL = "process:", "taxi.process"
UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING")
ENTRYPOINTS = ("pipelines.", "pipelines/")  # where prefect.yaml says that our flows are, and said before


@dataclass(frozen=True)
class UnderWay:
    """A run that Prefect takes for under way; ``alive`` says whether its process lives, None where nobody here can say."""

    name: str
    alive: bool | None


@contextmanager
def explaining_refusals() -> Iterator[None]:
    """Turn a refusal of our credentials by Prefect's server (401, 403) into one line that names their variable."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise
        said = "set PREFECT_API_AUTH_STRING to the user:password of the server's PREFECT_SERVER_API_AUTH_STRING"
        raise TaxiError(f"Prefect's server at {error.request.url.host} refused the credentials: {said}") from error


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """Yield a client of Prefect's server."""
    with explaining_refusals(), get_client(sync_client=True) as client:
        yield client


def process_mark(tags: list[str], labels: dict[str, object] | None) -> str | None:
    """Return the mark of a run's process: its label, or else the tag of the process that created it."""
    tagged = [tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)]
    signed = (labels or {}).get(LABEL)
    return str(signed) if signed else (tagged[0] if tagged else None)


def judge(name: str, tags: list[str], labels: dict[str, object] | None) -> UnderWay:
    """Say whether the run's process lives."""
    mark = process_mark(tags, labels)
    return UnderWay(name, lives_here(mark) if mark else None)


PAGE = 200
Answer = TypeVar("Answer")
_LOG = logging.getLogger(__name__)


def tagged(flow: Callable[..., Answer]) -> Callable[..., Answer]:
    """Return the flow as a function whose runs, and those it starts, carry this process's mark from their creation on.

    A Prefect server that no longer answers is one explained line; if it was ended by the signal that ended us, it is none.
    """

    for name in ("flow_runs", "task_runs"):
        logging.getLogger(f"prefect.{name}").addFilter(_is_news)

    def run(*arguments: Any, **named: Any) -> Answer:
        try:
            with explaining_refusals(), tags(f"{TAG}{machine_mark()}"):
                return flow(*arguments, **named)
        except httpx.TransportError as error:
            if number := _asked_to_end(error):
                logging.disable()  # what is said from here on is that nobody listens
                sys.exit(128 + number)
            todo = "what was done is kept: run it again"
            raise TaxiError(
                f"Prefect's server at {error.request.url.host} no longer answers ({error}); {todo}"
            ) from error

    return run


def _asked_to_end(error: BaseException | None) -> int | None:
    """Return the signal that was being handled when the error came, if one was."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(error, TerminationSignal):
        return int(error.signal)
    return _asked_to_end(error.__context__) if error else None


def _is_news(record: logging.LogRecord) -> bool:
    """Filter out what Prefect says of a server that was ended by the signal that ended us."""
    return not (record.exc_info and _asked_to_end(record.exc_info[1]))


def sign(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Label a run that begins with its process, whoever started it: a hook for ``on_running``.

    A process that a worker started then does what a command does: it marks what it starts, and clears away what is left.
    """
    for attempt in _patience(120):
        with attempt, prefect_client() as client:
            client.update_flow_run_labels(flow_run.id, {LABEL: machine_mark()})
    if not is_prepared():
        prepare_process(load_settings())
        mark_crashed()


# --- Retry of what is transient, where nobody waits for the answer: under a worker.

Given = ParamSpec("Given")
PATIENCE_SECONDS = 7200.0


def is_transient(error: BaseException | None) -> bool:
    """Say whether something did not answer that may later: Prefect's server, the publisher, the registry, a store, a lock.

    Nothing is waited for any more once this process was asked to end.
    """
    if _asked_to_end(error):
        return False
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, NoAnswer | httpx.TransportError | LockHeld) or (
        error is not None and is_transient(error.__cause__)
    )


def _patience(seconds: float) -> Retrying:
    return Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_exponential(multiplier=5, max=600),
        stop=stop_after_delay(seconds),
        before_sleep=before_sleep_log(_LOG, logging.WARNING),
        reraise=True,
    )


def patient(body: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Let a flow's body begin again when something does not answer, for two hours, under a worker; what is done is not done again.

    A command fails at once: whoever typed it waits for the answer.
    """

    @wraps(body)
    def run(*arguments: Given.args, **named: Given.kwargs) -> Answer:
        return _patience(PATIENCE_SECONDS if is_workers() else 0)(body, *arguments, **named)

    return run


def _under_way(client: SyncPrefectClient) -> list[tuple[FlowRun, UnderWay]]:
    found: list[FlowRun] = []
    wanted = FlowRunFilter(state=FlowRunFilterState(type=OfType(any_=[StateType(name) for name in UNDER_WAY])))
    while True:
        page = client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=len(found))
        found += page
        if len(page) < PAGE:
            return [(run, _judge_run(client, run)) for run in found]


def _judge_run(client: SyncPrefectClient, run: FlowRun) -> UnderWay:
    judged = judge(run.name, run.tags, dict(run.labels))
    return UnderWay(run.name, False) if judged.alive is None and _lost_its_worker(client, run) else judged


def _lost_its_worker(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Say whether a worker took this run of ours and went before a process of it began: nobody will begin it any more."""
    worker, pool = (run.labels.get(f"prefect.{name}.name") for name in ("worker", "work-pool"))
    if not worker or not run.deployment_id or run.state_type != StateType.PENDING:
        return False
    if not (client.read_deployment(run.deployment_id).entrypoint or "").startswith(ENTRYPOINTS):
        return False
    workers = client.read_workers_for_work_pool(str(pool))
    return all(one.status == WorkerStatus.OFFLINE for one in workers if one.name == worker)


def read_under_way() -> list[UnderWay]:
    """Return the runs that Prefect's server takes for under way."""
    with prefect_client() as client:
        return [judged for _, judged in _under_way(client)]


def mark_crashed() -> list[str]:
    """Mark every run whose process is gone as crashed, and return the runs' names; may be done by several at once."""
    with prefect_client() as client:
        lost = [run for run, judged in _under_way(client) if judged.alive is False]
        # one may have come to its end, and then its process, while they were judged
        gone = [run for run in lost if client.read_flow_run(run.id).state_type in UNDER_WAY]
        for run in gone:
            state: Any = Crashed(message="its process ended without a word: killed, or the machine went down")
            client.set_flow_run_state(run.id, state, force=True)
    names = [run.name for run in gone]
    if names:
        _LOG.warning("marked %d flow runs as crashed, whose process is gone: %s", len(names), ", ".join(names))
    return names

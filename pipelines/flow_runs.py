"""Flow runs and the processes behind them: each run carries its process's mark, and one whose process is gone has crashed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateType as OfType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

from taxi.processes import lives_here, machine_mark

TAG, LABEL = "process:", "taxi.process"
UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING")


@dataclass(frozen=True)
class UnderWay:
    """A run that Prefect takes for under way; ``alive`` says whether its process lives, None where nobody here can say."""

    name: str
    alive: bool | None


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
    """Return the flow as a function whose runs, and those it starts, carry this process's mark from their creation on."""

    def run(*arguments: Any) -> Answer:
        with tags(f"{TAG}{machine_mark()}"):
            return flow(*arguments)

    return run


def sign(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Label a run that begins with its process, whoever started it: a hook for ``on_running``."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, {LABEL: machine_mark()})


def _under_way(client: SyncPrefectClient) -> list[tuple[FlowRun, UnderWay]]:
    found: list[FlowRun] = []
    wanted = FlowRunFilter(state=FlowRunFilterState(type=OfType(any_=[StateType(name) for name in UNDER_WAY])))
    while True:
        page = client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=len(found))
        found += page
        if len(page) < PAGE:
            return [(run, judge(run.name, run.tags, dict(run.labels))) for run in found]


def read_under_way() -> list[UnderWay]:
    """Return the runs that Prefect's server takes for under way."""
    with get_client(sync_client=True) as client:
        return [judged for _, judged in _under_way(client)]


def mark_crashed() -> list[str]:
    """Mark every run whose process is gone as crashed, and return the runs' names; may be done by several at once."""
    with get_client(sync_client=True) as client:
        gone = [run for run, judged in _under_way(client) if judged.alive is False]
        for run in gone:
            state: Any = Crashed(message="its process ended without a word: killed, or the machine went down")
            client.set_flow_run_state(run.id, state, force=True)
    names = [run.name for run in gone]
    if names:
        _LOG.warning("marked %d flow runs as crashed, whose process is gone: %s", len(names), ", ".join(names))
    return names

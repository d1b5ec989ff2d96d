"""Flow runs and the processes behind them: each run carries its process's mark, and one whose process is gone has crashed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateType as OfType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

from taxi.processes import lives_here, machine_mark

TAG, LABEL = "process:", "taxi.process"
OURS = ("monthly", "backfill", "ingest", "arrivals")
UNDER_WAY = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
PAGE = 200
Answer = TypeVar("Answer")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class InNameOnly:
    """A run that the server takes for under way: ``alive`` is False where its process is gone, None where nobody can say."""

    run: FlowRun
    alive: bool | None


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


def mark_of_run(run: FlowRun) -> str | None:
    """Return the mark of the run's process: its label, or else the tag of the process that created it."""
    tags = [tag.removeprefix(TAG) for tag in run.tags if tag.startswith(TAG)]
    signed = (run.labels or {}).get(LABEL)
    return str(signed) if signed else (tags[0] if tags else None)


def judge(run: FlowRun) -> InNameOnly:
    """Say whether the run's process lives."""
    mark = mark_of_run(run)
    return InNameOnly(run, lives_here(mark) if mark else None)


def _under_way(client: SyncPrefectClient) -> list[FlowRun]:
    found: list[FlowRun] = []
    wanted = FlowRunFilter(state=FlowRunFilterState(type=OfType(any_=UNDER_WAY)))
    flows = FlowFilter(name=FlowFilterName(any_=list(OURS)))
    while True:
        page = client.read_flow_runs(flow_filter=flows, flow_run_filter=wanted, limit=PAGE, offset=len(found))
        found += page
        if len(page) < PAGE:
            return found


def runs_in_name_only() -> list[InNameOnly]:
    """Return our runs that the server takes for under way and that are not: their process is gone, or nobody can say."""
    with get_client(sync_client=True) as client:
        return [one for run in _under_way(client) if not (one := judge(run)).alive]


def mark_crashed() -> list[str]:
    """Mark every run whose process is gone as crashed, and return the runs' names; may be done by several at once."""
    with get_client(sync_client=True) as client:
        gone = [run for run in _under_way(client) if judge(run).alive is False]
        for run in gone:
            state: Any = Crashed(message="its process ended without a word (killed, or the machine went down)")
            client.set_flow_run_state(run.id, state, force=True)
    names = [run.name for run in gone]
    if names:
        _LOG.warning("marked %d flow runs as crashed, whose process is gone: %s", len(names), ", ".join(names))
    return names

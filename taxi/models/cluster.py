"""A Dask cluster: who works there, work spread over its workers, and what happens when one is lost. The only module that knows Dask.

It is imported where the engine is ``dask`` and nowhere else. What is done on the workers stands in other modules.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from taxi.errors import TaxiError
from taxi.features.trip_features import TripFeatures
from taxi.fingerprint import code_of
from taxi.models.boosted import (
    OBJECTIVES,
    Boosted,
    Booster,
    Objective,
    Rows,
    calibrated,
    filled,
    lesson,
    plan_parts,
    step_to,
)
from taxi.models.fitting import (
    Part,
    Tally,
    assemble,
    boost_both,
    check_days,
    describe_fit,
    draw_rows,
    maker_of,
    plan_draw,
    tally_month,
)
from taxi.models.model import DurationModel
from taxi.params import FeatureParams, ModelParams

try:
    from dask import array
    from distributed import Client, Future, KilledWorker, wait
    from xgboost import dask as boosting
    from xgboost.collective import Config as Meeting
except ImportError as error:
    raise TaxiError(
        f"expected the packages of --engine dask ({error}); install them: pip install taxi[dask]"
    ) from error

_LOG = logging.getLogger(__name__)
CONNECT_S = 5
PATIENCE_S = 60  # without any worker
NOTICE_S = 5  # until the scheduler knows that a worker is gone
MEETING_S = 300  # until workers that boost together have found each other
ATTEMPTS = 3
Result = TypeVar("Result")
Plan = tuple[dict[str, Any], int, Objective | None]  # settings, rounds, and the loss where it is not among the settings


class WorkersLost(TaxiError):
    """Workers that worked together are not all there any more."""


@contextmanager
def connected(address: str, data: Path) -> Iterator[Client]:
    """Give a client; raise TaxiError if the scheduler does not answer, or if its workers lack this code or ``data``."""
    try:
        client = Client(address, timeout=CONNECT_S)  # the default client: xgboost.dask asks for it
    except (OSError, ValueError) as error:
        raise TaxiError(
            f"expected a Dask scheduler at {address}; it does not answer within {CONNECT_S} s ({error}). "
            "Start one with `dask scheduler`, and workers with `dask worker ADDRESS`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError as error:
            raise TaxiError(f"expected a worker at {address}; none came within {PATIENCE_S} s") from error
        _check_workers(client, data)
        yield client


def check_cluster(address: str, data: Path) -> None:
    """Raise TaxiError unless the scheduler answers and its workers can do this project's work."""
    with connected(address, data):
        _LOG.info("the Dask scheduler at %s answers", address)


def _ability(folder: Path) -> tuple[str, bool]:
    return code_of(__name__), folder.is_dir()


def _check_workers(client: Client, data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    try:
        found = client.run(_ability, data)
    except ImportError as error:
        raise TaxiError(f"expected the package taxi on every Dask worker; {error}") from error
    for worker, (code, sees) in found.items():
        if code != _ability(data)[0]:
            raise TaxiError(f"expected the same code on every Dask worker; the package taxi of {worker} is another one")
        if not sees:
            raise TaxiError(
                f"expected every Dask worker to see {data}; {worker} does not. Put TAXI_DATA on a shared folder"
            )


async def _workers(client: Client) -> dict[str, str]:
    if client.scheduler is None:
        raise TaxiError("expected a connection to the Dask scheduler; it was closed")
    try:
        found = (await client.scheduler.identity(n_workers=-1))["workers"]
    except OSError as error:
        raise TaxiError(f"the Dask scheduler does not answer any more: {error}") from error
    return {address: str(one["name"]) for address, one in found.items()}


def spread(client: Client, do: Callable[..., Any], items: Sequence[Any], *more: Any) -> list[Future]:
    """Begin ``do(item, *more)`` on the workers in turn, each time the same turn; where one is gone, on another."""
    names = client.sync(_workers, client)
    turns = sorted(names, key=lambda address: (names[address], address))
    return [
        client.submit(do, item, *more, pure=False, workers=[turns[at % len(turns)]], allow_other_workers=True)
        for at, item in enumerate(items)
    ]


def merged(client: Client, join: Callable[[Any, Any], Any], several: Sequence[Future]) -> Future:
    """Begin to join results two by two on the workers."""
    while len(several) > 1:
        pairs = [
            client.submit(join, one, two, pure=False) for one, two in zip(several[::2], several[1::2], strict=False)
        ]
        several = [*pairs, *several[len(pairs) * 2 :]]
    return several[0]


async def _watched(client: Client, what: str, work: Awaitable[Result], together: bool) -> Result:
    task, began, alone = asyncio.ensure_future(work), await _workers(client), 0
    known = began
    while not task.done():
        await asyncio.wait({task}, timeout=1)
        living = await _workers(client)
        lost, known = sorted(set(known) - set(living)), living
        alone = 0 if living else alone + 1
        if lost and not task.done():
            _LOG.warning("%s: lost the worker %s; %d are left", what, ", ".join(lost), len(living))
        if alone > PATIENCE_S or (lost and together and not task.done()):
            task.cancel()
            raise WorkersLost(f"{what}: lost {', '.join(lost) or 'every worker'}")
    return await _outcome(client, what, task, set(began) if together else set())


async def _outcome(client: Client, what: str, task: "asyncio.Future[Result]", began: set[str]) -> Result:
    failure = None if task.cancelled() else task.exception()
    if failure is None and not task.cancelled():
        return task.result()
    for _ in range(2 * NOTICE_S if began else 0):
        if lost := began - set(await _workers(client)):
            raise WorkersLost(f"{what}: lost {', '.join(sorted(lost))}") from failure
        await asyncio.sleep(0.5)
    if task.cancelled() or isinstance(failure, KilledWorker):
        raise TaxiError(f"{what}: given up by the Dask scheduler: {failure or 'cancelled'}") from failure
    return task.result()


def gathered(client: Client, what: str, futures: Any) -> Any:
    """Return the results of one future or of many; Dask itself does again what a lost worker had done, a few times."""
    return client.sync(lambda: _watched(client, what, client.gather(futures, asynchronous=True), together=False))


def run_on_a_worker(address: str, data: Path, do: Callable[..., Result], *given: Any) -> Result:
    """Return ``do(*given)``, done by some worker."""
    with connected(address, data) as client:
        return gathered(client, do.__name__, client.submit(do, *given, pure=False))


def boost(client: Client, what: str, teach: Callable[[], Sequence[Future]], plan: Plan) -> Booster:
    """Train on all workers that hold lessons, as one; begin again, ``ATTEMPTS`` times in all, on those left when one is lost.

    ``teach`` begins the lessons, one a month: dictionaries of ``data`` (n, k), ``label``, ``weight`` and perhaps ``base_margin``.
    Raises TaxiError after the last attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return client.sync(lambda lessons: _watched(client, what, _train(client, lessons, plan), True), teach())
        except WorkersLost as loss:
            if attempt == ATTEMPTS:
                raise TaxiError(f"{loss}; gave up after {ATTEMPTS} attempts") from loss
            client.wait_for_workers(1, timeout=PATIENCE_S)
            _LOG.warning("%s; beginning it again, attempt %d of %d", loss, attempt + 1, ATTEMPTS)
    raise AssertionError("the last attempt returns or raises")


def _shapes(lesson: dict[str, np.ndarray]) -> dict[str, tuple[float, ...]]:
    return {name: (np.nan, *values.shape[1:]) for name, values in lesson.items()}


async def _train(client: Client, lessons: Sequence[Future], plan: Plan) -> Booster:
    await wait(lessons)
    whole = {}
    for name, shape in (await client.submit(_shapes, lessons[0], pure=False)).items():
        pieces = [client.submit(itemgetter(name), one, pure=False) for one in lessons]
        whole[name] = array.concatenate([array.from_delayed(one, shape, np.float32) for one in pieces])
    settings, rounds, loss = plan
    matrix = await boosting.DaskQuantileDMatrix(client, **whole, max_bin=settings["max_bin"])
    meeting = Meeting(tracker_timeout=MEETING_S)
    found = await boosting.train(client, settings, matrix, num_boost_round=rounds, obj=loss, coll_cfg=meeting)
    return found["booster"]


# --- The fit of ``taxi.fitting`` on a cluster: months stay on its workers; the merged tally, the newest trips and the boosters come back.


def learn(maker: TripFeatures, tally: Tally) -> TripFeatures:
    """Return ``maker`` with the tally learnt, itself unchanged."""
    return maker.with_planned(maker.planned).restore(tally.sums)


def count(rows: Rows) -> int:
    """Return how many trips these are."""
    return len(rows.minutes)


def newest(rows: Rows, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features and minutes of the newest trips, which calibrate the interval."""
    return rows.seen[rows.newest, :columns], rows.minutes[rows.newest]


def teach(rows: Rows, name: str, columns: int, trunk: Booster | None, step: int) -> dict[str, np.ndarray]:
    """Return what part ``name`` learns from a month's rows; the interval from every ``step``-th."""
    rows = rows.older(step) if name == "interval" else rows
    data = filled(rows.seen[:, :columns])
    margin = None if trunk is None else trunk.inplace_predict(data, predict_type="margin")
    taught = {"data": data} | lesson(name, rows, margin)
    return {field: values.astype(np.float32) for field, values in taught.items()}


def boost_parts(client: Client, rows: Sequence[Future], columns: int, params: ModelParams) -> Boosted:
    """Fit trunk, heads and calibration where the rows lie, by the settings of the local engine; threads are the workers'."""
    trips = sum(gathered(client, "counting trips", [client.submit(count, one) for one in rows]))
    parts: dict[str, Booster] = {}
    for name, (settings, rounds) in plan_parts(params, trips).items():
        own_threads = {key: value for key, value in settings.items() if key != "nthread"}

        def lessons(name: str = name) -> list[Future]:
            trunk = client.scatter(parts["trunk"], broadcast=True) if name in ("mean", "median") else None
            return spread(client, teach, rows, name, columns, trunk, step_to(params.interval_rows, trips))

        parts[name] = boost(client, f"boosting the {name}", lessons, (own_threads, rounds, OBJECTIVES.get(name)))
    judging = gathered(client, "the newest trips", [client.submit(newest, one, columns) for one in rows])
    return calibrated(parts, *(np.concatenate(both) for both in zip(*judging, strict=True)))


def fit_months_on(
    scheduler: str,
    data: Path,
    parts: Sequence[Part],
    zones: pd.DataFrame,
    params: ModelParams,
    features: FeatureParams,
    as_of: pd.Timestamp,
) -> DurationModel:
    """Fit as ``fitting.fit_months`` does, each month read, tallied and drawn from by a worker that sees the folder ``data``.

    Raises ValueError as that does, and TaxiError if the scheduler, or too many workers, are lost.
    """
    maker = maker_of(zones, params, features)
    with connected(scheduler, data) as client:
        total = merged(client, Tally.join, spread(client, tally_month, parts, maker, as_of, params.half_life_days))
        tally = gathered(client, "tallying months", total)
        check_days(tally.days, as_of)
        draw = plan_draw(tally.days, as_of, params)
        rows = spread(client, draw_rows, parts, client.submit(learn, maker, total, pure=False), draw)
        maker.restore(tally.sums)
        if params.kind != "xgboost":
            return assemble(maker, gathered(client, "drawing trips", rows), tally.days, params, features)
        drawn = sum(gathered(client, "drawing trips", [client.submit(count, one) for one in rows]))
        _LOG.info("%s trips of %d months drawn on the workers at %s", f"{drawn:,}", len(parts), scheduler)
        recipe = describe_fit(tally.days, drawn, params, features) | {"engine": "dask"}
        return boost_both(lambda columns, own: boost_parts(client, rows, columns, own), maker, recipe, params)

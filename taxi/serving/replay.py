"""Replay of a month as live traffic over HTTP: predictions when trips begin, outcomes when they end."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from taxi.data.schema import AT_PICKUP, read_trips
from taxi.errors import TaxiError, UsageError
from taxi.models.evaluate import score
from taxi.outputs import OUTPUTS
from taxi.predictions.outcomes import replayed_id

# --- A past month as live traffic: which trips, in which order and when, what is asked and told, and how it goes so far.

ASKED = {"passenger_count": "passenger_count", "trip_type": "trip_type", "VendorID": "vendor"}


def read_traffic(path: Path, most: int | None = None) -> pd.DataFrame:
    """Return a month's kept trips (row, what is known at pickup, duration in minutes) in true order, the first ``most``."""
    if not path.is_file():
        raise UsageError(f"no kept trips of {path.parent.name} {path.stem} are on hand: `taxi ingest` brings them")
    trips = read_trips(path, ["row", *AT_PICKUP, "duration"]).sort_values(["pickup", "row"], ignore_index=True)
    return trips if most is None else trips.head(most)


def schedule(trips: pd.DataFrame, speed: float) -> pd.DataFrame:
    """Return what happens in order: ``trip`` (position), ``ends`` (False: it begins), ``at`` (seconds after the first pickup).

    ``at`` is in seconds of the replay, ``speed`` times as fast as the trips were; 0 means without waiting. At one moment
    trips begin before others end, so that none ends before it began.
    """
    begins = (trips["pickup"] - trips["pickup"].min()).dt.total_seconds().to_numpy()
    seconds = np.concatenate([begins, begins + trips["duration"].to_numpy() * 60])
    trip, ends = np.tile(np.arange(len(trips)), 2), np.repeat([False, True], len(trips))
    order = np.lexsort((trip, ends, seconds))
    at = seconds / speed if speed else np.zeros_like(seconds)
    return pd.DataFrame({"at": at[order], "trip": trip[order], "ends": ends[order]})


def requests(trips: pd.DataFrame, service: str, month: str) -> list[dict[str, Any]]:
    """Return for each trip what is asked of the service: only what is known at pickup, what is missing left out."""
    return [
        {
            "trip_id": replayed_id(service, month, trip["row"]),
            "pickup_datetime": trip["pickup"].isoformat(),
            **{name: int(trip[name]) for name in ("PULocationID", "DOLocationID")},
            **{asked: int(trip[name]) for name, asked in ASKED.items() if not pd.isna(trip[name])},
        }
        for trip in trips[["row", *AT_PICKUP]].to_dict("records")
    ]


def outcomes(trips: pd.DataFrame, service: str, month: str) -> list[dict[str, Any]]:
    """Return for each trip what the service is told when it ends."""
    told = zip(trips["row"], trips["duration"], strict=True)
    return [{"trip_id": replayed_id(service, month, row), "duration_minutes": minutes} for row, minutes in told]


@dataclass
class Progress:
    """What came back so far, one entry a trip; errors and coverage are of the trips that were answered and have ended."""

    duration: np.ndarray
    predicted: np.ndarray = field(init=False)
    arm: np.ndarray = field(init=False)
    version: np.ndarray = field(init=False)
    ended: np.ndarray = field(init=False)
    latency: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    outcomes: int = 0

    def __post_init__(self) -> None:
        """Begin with nothing answered."""
        trips = len(self.duration)
        self.predicted = np.full((trips, len(OUTPUTS)), np.nan)
        self.arm, self.version = np.full(trips, "", dtype=object), np.zeros(trips, dtype=int)
        self.ended = np.zeros(trips, dtype=bool)

    def answer(self, trip: int, given: dict[str, Any]) -> None:
        """Take the service's answer about the trip at that position; KeyError, ValueError or TypeError if it is none."""
        minutes = [float(given[f"{name}_minutes"]) for name in OUTPUTS]
        if not np.isfinite(minutes).all():
            raise ValueError(f"expected finite minutes; got {minutes}")
        self.arm[trip], self.version[trip] = str(given["arm"]), int(given["version"])
        self.predicted[trip] = minutes

    @property
    def answered(self) -> np.ndarray:
        """Which trips were answered."""
        return np.isfinite(self.predicted).all(axis=1)

    def scores(self, among: np.ndarray | None = None) -> dict[str, float] | None:
        """Return ``evaluate.score`` of the trips answered and ended (of those in the mask ``among``), None without any."""
        counted = self.answered & self.ended if among is None else self.answered & self.ended & among
        if not counted.any():
            return None
        return score(pd.Series(self.duration[counted]), pd.DataFrame(self.predicted[counted], columns=OUTPUTS))


def progress_line(now: str, progress: Progress) -> str:
    """Return one line: the replay's clock, counts, live error (minutes) and the share of trips inside the interval."""
    sent = f"{now}  {int(progress.answered.sum()):,} predicted, {sum(progress.failures.values()):,} failed"
    if (scores := progress.scores()) is None:
        return f"{sent}, none has ended"
    errors = f"RMSE {scores['rmse']:.3f}, MAE {scores['mae']:.3f}, {scores['coverage80']:.1%} inside the 80 % interval"
    return f"{sent}, {scores['n']:,} ended: {errors}"


def replay_result(service: str, month: str, progress: Progress, seconds: float) -> dict[str, Any]:
    """Return what a replay came to: counts, failures by kind, scores overall and by arm, latency and pace."""
    answered = progress.answered
    arms = {str(arm): progress.scores(progress.arm == arm) for arm in sorted(set(progress.arm[answered]))}
    versions, counts = np.unique(progress.version[answered], return_counts=True)
    return {
        "service": service,
        "month": month,
        "trips": len(answered),
        "answered": int(answered.sum()),
        "failed": sum(progress.failures.values()),
        "failures": dict(sorted(progress.failures.items())),
        "outcomes": progress.outcomes,
        "metrics": progress.scores(),
        "arms": arms,
        "versions": {str(version): int(count) for version, count in zip(versions, counts, strict=True)},
        "latency_ms": {f"p{q}": float(np.percentile(progress.latency, q)) for q in (50, 99) if progress.latency},
        "seconds": seconds,
        "per_second": int(answered.sum()) / seconds if seconds else 0.0,
    }


_LOG = logging.getLogger(__name__)
OUTCOMES_AT_ONCE = 500
ATTEMPTS = 10
TIMEOUT = 30.0
LONGEST_WAIT = 5.0
Say = Callable[[str], None]


class Replay:
    """One month on its way to one service; at most ``connections`` requests are under way, of ``batch`` trips each."""

    def __init__(
        self, client: httpx.AsyncClient, trips: pd.DataFrame, service: str, month: str, connections: int, batch: int
    ) -> None:
        self.client, self.batch = client, batch
        self.progress = Progress(trips["duration"].to_numpy())
        self.asked, self.told = requests(trips, service, month), outcomes(trips, service, month)
        self._due: dict[bool, list[int]] = {False: [], True: []}
        self._most = {False: batch, True: OUTCOMES_AT_ONCE}
        self._slots = asyncio.Semaphore(connections)
        self._under_way: set[asyncio.Task[None]] = set()

    async def happen(self, trip: int, ends: bool) -> None:
        """Let a trip begin or end; what is due is sent as soon as a request is full."""
        self._due[ends].append(trip)
        if len(self._due[ends]) >= self._most[ends]:
            await self.send(ends)

    async def send(self, ends: bool) -> None:
        """Send what is due in requests of their own, without waiting for the answers."""
        while due := self._due[ends][: self._most[ends]]:
            del self._due[ends][: len(due)]
            await self._slots.acquire()
            task = asyncio.create_task(self._tell(due) if ends else self._ask(due))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            task.add_done_callback(lambda _: self._slots.release())

    async def finish(self) -> None:
        """Send what is left and wait for every answer; outcomes that were not taken are sent again."""
        await self.send(False)
        for attempt in range(ATTEMPTS):
            await self.send(True)
            await asyncio.gather(*self._under_way)
            if not self._due[True]:
                return
            await asyncio.sleep(min(0.1 * 2**attempt, LONGEST_WAIT))
        _LOG.error("the service did not take %d outcomes", len(self._due[True]))

    async def _post(self, path: str, body: Any) -> httpx.Response:
        """Post and return the answer; one that says "too many" is waited for and sent again."""
        for _ in range(ATTEMPTS):
            response = await self.client.post(path, json=body)
            if response.status_code != 429:
                break
            asked = response.headers.get("Retry-After", "1")
            await asyncio.sleep(min(float(asked) if asked.isdigit() else 1.0, LONGEST_WAIT))
        return response

    async def _ask(self, due: list[int]) -> None:
        bodies, begun = [self.asked[trip] for trip in due], time.perf_counter()
        try:
            response = await self._post("/predict", bodies[0] if self.batch == 1 else {"trips": bodies})
            self.progress.latency.append(1000 * (time.perf_counter() - begun))
            response.raise_for_status()
            answer = response.json()
            answers = [answer] if self.batch == 1 else answer["predictions"]
            for trip, one in zip(due, answers, strict=True):
                self.progress.answer(trip, one)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            self._fail(error, len(due) - int(self.progress.answered[due].sum()))

    async def _tell(self, due: list[int]) -> None:
        try:
            response = await self._post("/outcomes", {"outcomes": [self.told[trip] for trip in due]})
            response.raise_for_status()
        except httpx.HTTPError as error:
            _LOG.warning("outcomes were not taken and are sent again: %s", _kind(error))
            self._due[True].extend(due)
            return
        self.progress.outcomes += len(due)
        self.progress.ended[due] = True

    def _fail(self, error: Exception, trips: int) -> None:
        kind = _kind(error)
        if kind not in self.progress.failures:
            _LOG.warning("predictions fail: %s", error)
        self.progress.failures[kind] += trips


def _kind(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return str(error.response.status_code)
    return type(error).__name__ if isinstance(error, httpx.HTTPError) else "not an answer"


async def _check_ready(client: httpx.AsyncClient, url: str) -> None:
    try:
        response = await client.get("/readyz")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TaxiError(f"expected a service at {url} (`taxi serve` starts one); {_kind(error)}: {error}") from error
    if response.status_code != 200:
        raise TaxiError(f"expected a service that is ready at {url}; /readyz answered {response.status_code}")


async def _report(replay: Replay, pickups: pd.Series, say: Say, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        answered = replay.progress.answered
        say(progress_line(str(pickups[answered].max()) if answered.any() else "–", replay.progress))


async def _play(replay: Replay, events: pd.DataFrame) -> None:
    begun = time.perf_counter()
    for at, trip, ends in zip(events["at"].tolist(), events["trip"].tolist(), events["ends"].tolist(), strict=True):
        if (wait := begun + at - time.perf_counter()) > 0:
            await replay.send(False)
            await replay.send(True)
            await asyncio.sleep(wait)
        await replay.happen(trip, ends)
    await replay.finish()


async def _run(
    trips: pd.DataFrame, service: str, month: str, url: str, speed: float, connections: int, batch: int,
    headers: dict[str, str], say: Say, every: float,
) -> dict[str, Any]:  # fmt: skip
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, limits=limits) as client:
        await _check_ready(client, url)
        replay, begun = Replay(client, trips, service, month, connections, batch), time.perf_counter()
        report = asyncio.create_task(_report(replay, trips["pickup"], say, every))
        await _play(replay, schedule(trips, speed))
        report.cancel()
    return replay_result(service, month, replay.progress, time.perf_counter() - begun)


def replay_month(
    trips: pd.DataFrame,
    service: str,
    month: str,
    url: str,
    speed: float = 600.0,
    connections: int = 8,
    batch: int = 1,
    key: str | None = None,
    say: Say = _LOG.info,
    every: float = 5.0,
) -> dict[str, Any]:
    """Send trips (of ``replay.read_traffic``) to the service at ``url`` and return ``replay.replay_result``.

    ``speed``: seconds of the month in one of the replay, 0 without waiting. ``say`` gets a line every ``every`` seconds. Raises
    TaxiError if no service is ready there; requests that fail later are counted, and not sent again.
    """
    headers = {"X-API-Key": key} if key else {}
    return asyncio.run(_run(trips, service, month, url, speed, connections, batch, headers, say, every))

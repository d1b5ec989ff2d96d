"""Hot reload in a worker: files on its own disk say which versions serve and by which rules; looked at five times a second."""

import asyncio
import gc
import logging
import math
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from taxi.config import API_KEYS, load_api_keys, secret_file
from taxi.errors import TaxiError, UsageError
from taxi.months import shift_month
from taxi.params import load_params
from taxi.serving.api_keys import ApiKeys
from taxi.serving.loader import ARMS, Loaded, give_back, load_slot
from taxi.serving.local_store import Entry, Place, State
from taxi.serving.metrics import AGE, DEGRADED, LOOKED, PENDING, REFUSED, SWAPS, TRAINED_TO, VERSION
from taxi.serving.middleware import Rules
from taxi.serving.predictor import Predictor

_LOG = logging.getLogger(__name__)
EVERY = 0.2
CALLS_SECONDS, WARN_SECONDS = 60.0, 86_400.0  # between two lines on who called, and on keys that expire
RETRY_SECONDS, LONGEST_RETRY = 1.0, 60.0  # between two loads of a version that could not be loaded, doubled each time


def _stamp(path: Path | None) -> tuple[int, int]:
    """Return what changes when a file is replaced or written; zeros where there is none."""
    try:
        seen = path.stat() if path else None
    except FileNotFoundError:
        seen = None
    return (seen.st_mtime_ns, seen.st_ino) if seen else (0, 0)


def _end_of(month: str) -> float:
    return datetime.fromisoformat(f"{shift_month(month, 1)}-01T00:00:00+00:00").timestamp()


class Watch:
    """Brings what lies on disk into a running worker: versions by ``place``, rules by ``params.yaml`` and the keys' file."""

    def __init__(self, place: Place, params: Path, predictor: Predictor, rules: Rules) -> None:
        self._place, self._params, self._predictor, self._rules = place, params, predictor, rules
        self._stamps: dict[Path | None, tuple[int, int]] = {}
        self._loader = ThreadPoolExecutor(1, "loader")
        self._retry_at, self._pause = math.inf, RETRY_SECONDS
        self._calls_due, self._warning_due = time.monotonic() + CALLS_SECONDS, 0.0
        self.failed: set[str] = set()
        self.state = State()

    def _changed(self, path: Path | None) -> bool:
        stamp = _stamp(path)
        if self._stamps.get(path) == stamp:
            return False
        self._stamps[path] = stamp
        return True

    async def look(self) -> None:
        """Take up what has changed since the last look, and what could not be loaded then."""
        try:
            if self._changed(self._params) | self._changed(secret_file(API_KEYS)):
                self._renew_rules()
            if self._changed(self._place.state) or time.monotonic() >= self._retry_at:
                await self._follow_state()
        except (TaxiError, OSError):
            _LOG.exception("what serves goes on serving")
        self._tell()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.look()

    async def first(self, seconds: float) -> None:
        """Wait, ``seconds`` at most, while the first champion lies on disk and is not loaded: a sibling may be ready already."""
        until = time.monotonic() + seconds
        while self._predictor.slots.champion is None and self._is_coming() and time.monotonic() < until:
            await asyncio.sleep(EVERY / 10)

    def _is_coming(self) -> bool:
        try:
            return "champion" not in self.failed and self._place.read_state().champion is not None
        except TaxiError:
            return False

    def close(self) -> None:
        """End the loader's thread, and log who called since the last line."""
        self._loader.shutdown()
        self._log_calls()

    def _renew_rules(self) -> None:
        try:
            params, keys = load_params(self._params), ApiKeys(load_api_keys())
        except (UsageError, OSError) as error:
            _LOG.error("the rules stay as they were: %s", error)
            return
        if len(self._rules.keys) and not len(keys):
            _LOG.error("the keys stay as they were: the file has none")
            keys = self._rules.keys
        self._rules.renew(params.serve, keys)
        self._warning_due = 0.0
        self._predictor.experiment = params.experiment

    async def _follow_state(self) -> None:
        self.state, self._retry_at = self._place.read_state(), math.inf
        self.failed &= {arm for arm in ARMS if self.state.arm(arm)}
        for arm in ARMS:
            entry = self.state.arm(arm)
            if entry is None and arm == "challenger":
                self._predictor.slots = self._predictor.slots.with_arm(arm, None)
            elif entry is not None and not self._has(arm, entry):
                await self._swap(arm, entry)

    def _has(self, arm: str, entry: Entry) -> bool:
        loaded = getattr(self._predictor.slots, arm)
        return loaded is not None and loaded.entry.sha256 == entry.sha256

    async def _swap(self, arm: str, entry: Entry) -> None:
        """Load beside what serves, then switch; what cannot be loaded changes nothing."""
        began = time.perf_counter()
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(self._loader, self._load, entry)
        except Exception:  # a version may fail in any way; what serves goes on serving
            _LOG.exception(
                "version %d passed its examination and cannot be loaded here; it is tried again", entry.version
            )
            self.failed.add(arm)
            self._retry_at, self._pause = time.monotonic() + self._pause, min(2 * self._pause, LONGEST_RETRY)
            return
        self.failed.discard(arm)
        self._pause = RETRY_SECONDS
        self._predictor.slots = self._predictor.slots.with_arm(arm, loaded)
        await asyncio.get_running_loop().run_in_executor(self._loader, give_back)
        SWAPS.labels(arm).inc()
        _LOG.info("version %d serves as %s; loaded in %.2f s", entry.version, arm, time.perf_counter() - began)

    def _load(self, entry: Entry) -> Loaded:
        return load_slot(self._place.find(entry), entry.version, entry)

    def _log_calls(self) -> None:
        """Log who called since the last time, by the names of the keys: one line a key."""
        calls, self._rules.calls = self._rules.calls, Counter()
        for name in sorted({name for name, _, _ in calls}):
            routes = [
                f"{count:,} x {path} {status}" for (by, path, status), count in sorted(calls.items()) if by == name
            ]
            _LOG.info("API key %s: %s", name, ", ".join(routes))

    def _tell_of_keys(self, now: datetime) -> None:
        if time.monotonic() >= self._calls_due:
            self._calls_due = time.monotonic() + CALLS_SECONDS
            self._log_calls()
        if time.monotonic() >= self._warning_due:
            self._warning_due = time.monotonic() + WARN_SECONDS
            for key in self._rules.keys.expiring(now):
                _LOG.warning("API key %s expires, or has expired: %s", key.name, key.expires)

    def _tell(self) -> None:
        now = datetime.now(UTC)
        self._tell_of_keys(now)
        for arm in ARMS:
            loaded = getattr(self._predictor.slots, arm)
            VERSION.labels(arm).set(loaded.version if loaded else 0)
            if loaded:
                AGE.labels(arm).set((now - datetime.fromisoformat(loaded.entry.since)).total_seconds())
                TRAINED_TO.labels(arm).set(_end_of(loaded.entry.trained_to))
        PENDING.set(sum(not self._has(arm, entry) for arm in ARMS if (entry := self.state.arm(arm))))
        LOOKED.set(self._place.looked_at())
        DEGRADED.set(self.state.degraded)
        REFUSED.set(len(self.state.refused))


def freeze_garbage() -> None:
    """Take what was imported out of the garbage collector's sight: its full rounds would stop every request for as long."""
    gc.collect()
    gc.freeze()

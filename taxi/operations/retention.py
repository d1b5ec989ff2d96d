"""Retention and erasure: rows and files that are too old, and all rows of one trip, counted first and removed only when asked to."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from taxi.addresses import sqlite_file
from taxi.config import SERVICES, Settings
from taxi.files import changing_log, lock_is_held, log_parts, remove, staged, staging_path
from taxi.monitoring.metric_store import open_metrics
from taxi.params import Params
from taxi.predictions.spool import REFUSED, segments_of
from taxi.predictions.store import open_store
from taxi.registry.versions import ENVIRONMENTS, versions

Json = dict[str, Any]


@dataclass(frozen=True)
class Old:
    """What of one table or folder is older than ``days``: rows, or files with their bytes."""

    what: str
    days: int
    rows: int = 0
    files: tuple[Path, ...] = ()
    bytes_: int = 0


def _size(path: Path) -> int:
    inner = path.rglob("*") if path.is_dir() else (path,)
    return sum(one.stat().st_size for one in inner if one.is_file())


def _changed(path: Path) -> float:
    inner = (path, *path.rglob("*")) if path.is_dir() else (path,)
    return max(one.stat().st_mtime for one in inner)


def _older(paths: Iterable[Path], days: int) -> tuple[Path, ...]:
    since = time.time() - days * 86_400
    return tuple(path for path in sorted(paths) if not path.name.startswith(".") and _changed(path) < since)


def recorded_digests(settings: Settings) -> set[str]:
    """Return the SHA-256 of published bytes that any registered version names; raises RegistryUnreachable without an answer."""
    registered = [
        version
        for service in SERVICES
        for environment in ENVIRONMENTS
        for version in versions(settings.tracking_uri, service, environment)
    ]
    return {text for one in registered for tag, text in one.tags.items() if tag.startswith("data.")}


def _editions(settings: Settings, days: int) -> tuple[Path, ...]:
    """Return replaced editions of published months that no registered version was made or judged from."""
    old = _older((settings.data / "editions").glob("*/*.parquet"), days)
    kept = {digest[:12] for digest in recorded_digests(settings)} if old else set()
    return tuple(path for path in old if path.stem[-12:] not in kept)


def _backtest(settings: Settings, days: int) -> tuple[Path, ...]:
    """Return what backtests kept that were not touched since; none of a service whose backtest runs now."""
    folders = [path for path in (settings.data / "backtest").glob("*") if path.is_dir()]
    idle = [path for path in folders if not any(map(lock_is_held, (path / ".locks").glob("*.lock")))]
    return _older((place for folder in idle for kind in folder.glob("[!.]*") for place in kind.glob("*")), days)


def _logs(settings: Settings, days: int) -> tuple[Path, ...]:
    """Return what logs put aside when they were full; the file that is appended to stays."""
    logs = [settings.alarm_log, settings.spool / REFUSED, *settings.reports.glob("*/retrain/decisions.jsonl")]
    return _older([part for log in logs for part in log_parts(log) if part != log], days)


def _cutoff(params: Params, now: datetime) -> datetime | None:
    """Return from when on predictions are kept: those of an experiment that runs are, whatever their age; None keeps all."""
    since = now - timedelta(days=params.retention.predictions_days)
    if params.experiment.mode == "none":
        return since
    return params.experiment.start and min(since, params.experiment.start)


def prune(settings: Settings, params: Params, now: datetime, do: bool = False) -> list[Old]:
    """Return what is too old by ``params.retention``, one entry a table or folder; with ``do`` it is removed.

    It may be killed and repeated at any time. What a registered version names, and what a running experiment needs, stays.
    """
    days, cutoff = params.retention, _cutoff(params, now)
    copies = _older((settings.data / "models").glob("*/versions/*"), days.copies_days)
    files = {
        "editions": (days.editions_days, _editions(settings, days.editions_days)),
        "backtest": (days.backtest_days, _backtest(settings, days.backtest_days)),
        "model copies": (days.copies_days, copies),
        "logs": (days.logs_days, _logs(settings, days.logs_days)),
    }
    store = open_store(settings.predictions, make=False)
    metrics = open_metrics(settings.metrics, make=False)
    try:
        hour = (now - timedelta(days=days.live_metrics_days)).astimezone(UTC).strftime("%Y-%m-%dT%H")
        rows = store.count_before(cutoff) if cutoff else {}
        old = [Old(name, days.predictions_days, count) for name, count in rows.items()]
        live = metrics.count_live_before(hour)
        old.append(Old("live metrics", days.live_metrics_days, live))
        old += [Old(name, age, 0, paths, sum(map(_size, paths))) for name, (age, paths) in files.items()]
        if do:
            for path in (path for one in old for path in one.files):
                _remove_whole(path)
            if cutoff and any(rows.values()):
                store.delete_before(cutoff)
            if live:
                metrics.delete_live_before(hour)
    finally:
        store.close()
        metrics.close()
    return old


def _remove_whole(path: Path) -> None:
    """Remove a file or folder; a folder is renamed first, so that a kill leaves none half there under its name."""
    if path.is_dir():
        path = path.rename(staging_path(path))
    remove(path)


# --- One trip, by a person's wish: in the store, in what waits for it, and in what it refused.


def erase_trip(settings: Settings, service: str, trip: str) -> Json:
    """Remove a trip's predictions and outcomes; return in what they were found, and whether they are ``gone``.

    Rows of it that wait elsewhere (in memory, on a task's own disk) are not written any more: the store keeps a mark.
    """
    store, found = open_store(settings.predictions), dict[str, int]()
    try:
        store.mark_erased(service, trip)
        ids = set(store.trip_predictions(service, trip))
        found["spool"] = sum(_erase_lines(segment, service, trip, ids) for segment in _waiting(settings))
        found["refused rows"] = _erase_refused(settings.spool / REFUSED, service, trip, ids)
        found |= store.delete_trip(service, trip, ids)
        gone = not store.trip_predictions(service, trip)
    finally:
        store.close()
    return {"service": service, "trip_id": trip, "found": found, "gone": gone}


def _waiting(settings: Settings) -> list[Path]:
    folders = [path for path in settings.spool.glob("*") if path.is_dir()]
    return [segment for folder in folders for segment in segments_of(folder, unfinished=True)]


def _erase_refused(log: Path, service: str, trip: str, ids: set[str]) -> int:
    if not log_parts(log):
        return 0
    with changing_log(log):
        return sum(_erase_lines(part, service, trip, ids) for part in log_parts(log))


def _erase_lines(path: Path, service: str, trip: str, ids: set[str]) -> int:
    """Write a file of one JSON row a line anew without the trip's; return how many lines went."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    except FileNotFoundError:  # carried into the store meanwhile
        return 0
    kept = [line for line in lines if not _is_of(line, service, trip, ids)]
    if len(kept) < len(lines):
        with staged(path) as part:
            part.write_text("".join(kept), encoding="utf-8", errors="surrogateescape")
    return len(lines) - len(kept)


def _is_of(line: str, service: str, trip: str, ids: set[str]) -> bool:
    try:
        _, row = json.loads(line)
        same = row.get("trip_id") == trip and row.get("service") in (None, service)
        return bool(same or row.get("prediction_id") in ids)
    except (ValueError, TypeError, AttributeError):
        return json.dumps(trip) in line  # a line that is no row may still hold it


def unreached(settings: Settings) -> str:
    """Return where a trip may be that no command here reaches."""
    database = "" if sqlite_file(settings.predictions) else ", the server's own backups and logs"
    return f"backups made before{database}, and files that were written elsewhere (`taxi score --out`, exports) are not reached"

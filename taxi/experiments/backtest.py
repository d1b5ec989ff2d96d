"""Backtest: months played again in the order in which they came, under each retraining policy."""

import logging
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from taxi.config import Settings
from taxi.data.acceptance import clean_month, read_acceptance
from taxi.data.fetch import fetch_month, fetch_zones
from taxi.data.source import open_source
from taxi.errors import MonthRefused, NotPublished
from taxi.experiments.backtest_month import Stage, play_month
from taxi.experiments.backtest_request import Asked
from taxi.experiments.backtest_tables import result_file
from taxi.files import remove_staging, write_json
from taxi.fingerprint import Shelf
from taxi.months import iterate_months, shift_month
from taxi.params import Params, override
from taxi.processes import FORKING, end_with_parent, import_before_forking
from taxi.runs.month_result import MonthResult
from taxi.training.plan import make_plan
from taxi.training.policy import find_faults

Json = dict[str, Any]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Months:
    """The months of a backtest: those to play, those that nobody has, and why others were refused."""

    played: list[str]
    missing: list[str]
    refused: dict[str, str]


def shelf_of(settings: Settings, service: str) -> Shelf:
    """Return where a service's backtests keep what they made."""
    return Shelf(settings.data / "backtest" / service)


def _bring(settings: Settings, service: str, month: str, params: Params, source: str | None) -> None:
    """Bring a month on hand as the monthly run does; one that was judged already is left as it is."""
    paths = settings.month(service, month)
    if paths.acceptance.is_file():
        refused = [finding.message for finding in read_acceptance(paths).refusals]
        if refused or not paths.trips.is_file():
            raise MonthRefused("; ".join(refused) or f"its kept trips are gone: {paths.trips}")
        return
    if not paths.raw.is_file():
        if source is None:
            raise NotPublished(f"{service} {month} is not on hand")
        publisher = open_source(source)
        fetch_zones(publisher, settings.zones)
        fetch_month(publisher, service, month, paths)
    clean_month(paths, params)


def _gather(settings: Settings, service: str, months: Iterable[str], params: Params, source: str | None) -> Months:
    played, missing, refused = list[str](), list[str](), dict[str, str]()
    for month in months:
        try:
            _bring(settings, service, month, params, source)
            played.append(month)
        except NotPublished:
            missing.append(month)
        except MonthRefused as error:
            refused[month] = str(error)
    return Months(played, missing, refused)


def gather_months(settings: Settings, asked: Asked, params: Params, source: str | None = None) -> Months:
    """Bring the months on hand, oldest first; ``source`` is asked for those that are not there.

    It is asked for the window before the first month too, which the first month is compared with and learns from; of these,
    months that it lacks are passed over. Raises NotPublished, which lists the months there are, if the first or the last month
    is nowhere to be had.
    """
    if source is not None:
        ends = (shift_month(asked.first, -back) for back in (params.model.window_months, 1))
        before = _gather(settings, asked.service, iterate_months(*ends), params, source)
        _LOG.info("%s before %s: missing %s, refused %s", asked.service, asked.first, before.missing, before.refused)
    found = _gather(settings, asked.service, iterate_months(asked.first, asked.last), params, source)
    if lacking := [month for month in (asked.first, asked.last) if month in found.missing]:
        there = ", ".join(settings.months_on_hand(asked.service)) or "none"
        raise NotPublished(
            f"{asked.service} {' and '.join(dict.fromkeys(lacking))} not on hand: name months that are, or `taxi ingest` them; "
            f"there are {there}"
        )
    return found


def _stage(settings: Settings, asked: Asked, params: Params, policy: str, threads: int) -> Stage:
    own = {"retrain.policy": policy, "model.threads": threads}
    return Stage(settings, override(params, own), shelf_of(settings, asked.service))


def play_policy(stage: Stage, service: str, months: Sequence[str]) -> list[Json]:
    """Play the months in order under the stage's policy; each leaves its result as JSON, and the next builds on it."""
    results, told, versions = dict[str, MonthResult](), list[Json](), tuple[Any, ...]()
    policy = stage.params.retrain.policy
    for month in months:
        played = play_month(stage, service, month, versions, results)
        results[month], versions = played.month, played.versions
        told.append(played.result)
        write_json(stage.shelf.folder / "months" / policy / f"{month}.json", played.result)
        _LOG.info("%s %s, %s: %s; %s", service, month, policy, played.month.verdict, played.month.reason)
    return told


def _fit_challenger(stage: Stage, service: str, month: str) -> None:
    on_hand = stage.settings.months_on_hand(service)
    stage.fits.get(make_plan(service, month, on_hand, stage.params.model.window_months, None), "challenger")


def _sound(settings: Settings, service: str, month: str) -> bool:
    return not find_faults(read_acceptance(settings.month(service, month)).findings)


def _wait(futures: Sequence["Future[Any]"], what: str) -> list[Any]:
    for number, done in enumerate(as_completed(futures), 1):
        done.result()
        _LOG.info("%s: %d of %d", what, number, len(futures))
    return [one.result() for one in futures]


def play_beside(jobs: int, stages: dict[str, Stage], service: str, months: Sequence[str]) -> list[list[Json]]:
    """Play the policies in ``jobs`` processes; what retrains every month needs every fit, so these come first, side by side."""
    import_before_forking("taxi.experiments.backtest_month")
    with ProcessPoolExecutor(jobs, FORKING, end_with_parent, (signal.SIGKILL,)) as pool:
        if stage := stages.get("always"):
            sound = [month for month in months if _sound(stage.settings, service, month)]
            _wait([pool.submit(_fit_challenger, stage, service, month) for month in sound], "fits")
        return _wait([pool.submit(play_policy, stage, service, months) for stage in stages.values()], "policies")


def play(settings: Settings, asked: Asked, params: Params, jobs: int = 1, source: str | None = None) -> Json:
    """Play the months under each policy and keep the result, which is returned; what an earlier call made is taken up.

    ``jobs`` processes share the work; their number changes nothing but the time it takes.
    """
    params = override(params, asked.overrides)
    shelf = shelf_of(settings, asked.service)
    remove_staging(shelf.folder)
    months = gather_months(settings, asked, params, source)
    threads = max(1, params.model.threads // jobs)
    stages = {policy: _stage(settings, asked, params, policy, threads) for policy in asked.policies}
    if jobs > 1:
        lists = play_beside(jobs, stages, asked.service, months.played)
    else:
        lists = [play_policy(stage, asked.service, months.played) for stage in stages.values()]
    result = {
        "service": asked.service,
        "from": asked.first,
        "to": asked.last,
        "policies": list(asked.policies),
        "overrides": asked.overrides,
        "missing": months.missing,
        "refused": months.refused,
        "months": [one for played in lists for one in played],
    }
    write_json(result_file(settings, asked.service), result)
    return result

"""The fit of ``taxi.fitting`` on a cluster: months stay on its workers; the merged tally, the newest trips and the boosters come back."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from taxi.boosted import Boosted, filled
from taxi.boosting import OBJECTIVES, Booster, Rows, calibrated, lesson, plan_parts, step_to
from taxi.cluster import Client, Future, boost, connected, gathered, merged, spread
from taxi.features import TripFeatures
from taxi.fitting import (
    Part,
    Tally,
    assemble,
    boost_both,
    check_days,
    describe,
    draw_rows,
    maker_of,
    plan_draw,
    tally_month,
)
from taxi.model import DurationModel
from taxi.params import FeatureParams, ModelParams

_LOG = logging.getLogger(__name__)


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
        recipe = describe(tally.days, drawn, params, features) | {"engine": "dask"}
        return boost_both(lambda columns, own: boost_parts(client, rows, columns, own), maker, recipe, params)

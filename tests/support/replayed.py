"""A replay to a real service, held against the batch: the same numbers for the same trips, and an outcome for each."""

from pathlib import Path
from typing import Any

import pandas as pd

from taxi.models.evaluate import score
from taxi.models.model import load_model
from taxi.models.scoring import score_trips
from taxi.outputs import OUTPUTS
from taxi.predictions.outcomes import replayed_id
from taxi.predictions.store import open_store
from taxi.serving.replay import replay_month
from tests.support.serving_worlds import ServingWorld


def replay_to(world: ServingWorld, trips: pd.DataFrame, month: str, **how: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """Replay ``trips`` (of ``read_traffic``) to a service that is started for it; return the result and the prediction log."""
    running = world.running().start()
    try:
        running.ready()
        result = replay_month(trips, world.service, month, running.url, speed=0, **how)
    finally:
        code = running.stop()
    assert code == 0, running.log.read_text()[-4000:]
    store = open_store(f"sqlite:///{world.place / 'data' / 'predictions.db'}")
    try:
        return result, store.with_outcomes(world.service)
    finally:
        store.close()


def differences(
    result: dict[str, Any], log: pd.DataFrame, trips: pd.DataFrame, folder: Path, service: str, month: str
) -> dict[str, float]:
    """Return the widest gaps between service and batch: of answers and outcomes (minutes), and of the scores; and rows too many.

    A trip that is not in the log, or has no outcome there, makes its gap infinite.
    """
    ids = [replayed_id(service, month, row) for row in trips["row"]]
    batch = score_trips(trips, load_model(folder), 1).to_pandas()[OUTPUTS].set_axis(ids)
    kept = log.drop_duplicates("trip_id").set_index("trip_id").reindex(ids)
    durations = pd.Series(trips["duration"].to_numpy(), index=ids)
    scores = score(durations, batch)
    return {
        "answers": float((kept[OUTPUTS] - batch).abs().fillna(float("inf")).to_numpy().max()),
        "outcomes": float((kept["duration"] - durations).abs().fillna(float("inf")).max()),
        "scores": max(abs(result["metrics"][name] - value) for name, value in scores.items()),
        "rows": len(log) - len(ids),
    }

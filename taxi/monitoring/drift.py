"""Drift of inputs and predictions by effect size, through Evidently; its own page is kept beside ours."""

import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.report import Snapshot
from evidently.metrics import ValueDrift
from evidently.sdk.models import PanelMetric, ProjectModel
from evidently.sdk.panels import DashboardPanelPlot
from evidently.ui.workspace import Workspace

from taxi.files import locked, staged
from taxi.params import MonitorParams

NUMERIC = ("miles", "prediction")
CATEGORICAL = (
    "borough_from",
    "borough_to",
    "hour",
    "weekday",
    "VendorID",
    "passenger_count",
    "trip_type",
    "pickup_zone",
    "dropoff_zone",
)
NOTHING_COMPARED = (
    "<!doctype html><html lang='en'><meta charset='utf-8'><title>No comparison</title><body style='font:16px sans-serif;margin:3em'>"
    "<p>Nothing was compared: there was no champion when this month came, so there were no predictions to watch.</p></body></html>\n"
)
METHODS = {"numeric": "wasserstein", "categorical": "jensenshannon"}


@dataclass(frozen=True)
class Drift:
    """``table``: one row a column with effect, limit and drifted; ``note`` says how trips were sampled; ``snapshot`` is Evidently's."""

    table: pd.DataFrame
    share: float
    prediction: float | None
    note: str
    snapshot: Snapshot


def describe_inputs(trips: pd.DataFrame, zones: pd.DataFrame, predicted: pd.Series | None) -> pd.DataFrame:
    """Return what is watched of each trip: zones, boroughs, time, distance between centroids (miles), ride, prediction (minutes)."""
    start, end = trips["PULocationID"], trips["DOLocationID"]
    apart = (start.map(zones[axis]) - end.map(zones[axis]) for axis in ("x", "y"))
    watched = pd.DataFrame(
        {
            "miles": sum(one**2 for one in apart) ** 0.5,
            "borough_from": start.map(zones["borough"]).astype(str),
            "borough_to": end.map(zones["borough"]).astype(str),
            "hour": trips["pickup"].dt.hour.astype(str),
            "weekday": trips["pickup"].dt.dayofweek.astype(str),
            "pickup_zone": start.astype(str),
            "dropoff_zone": end.astype(str),
            **{
                name: trips[name].fillna(-1).astype(int).astype(str)
                for name in ("VendorID", "passenger_count", "trip_type")
            },
        }
    )
    return watched if predicted is None else watched.assign(prediction=predicted)


def sample_trips(trips: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """Return at most ``rows`` of the trips, drawn at random without replacement, in their order."""
    return trips if len(trips) <= rows else trips.sample(rows, random_state=seed).sort_index()


def _limit(name: str, params: MonitorParams) -> float:
    return params.prediction_drift if name == "prediction" else params.column_drift


def compare_months(reference: pd.DataFrame, current: pd.DataFrame, params: MonitorParams) -> Drift:
    """Compare frames of ``describe_inputs``: Wasserstein distance over the reference's deviation, or Jensen-Shannon distance.

    Both are sizes of effect, not p-values: at these numbers of trips every difference is significant.
    """
    numeric = [name for name in NUMERIC if name in current.columns]
    drawn = [
        sample_trips(frame.dropna(subset=["miles"]), params.sample_rows, params.seed) for frame in (reference, current)
    ]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=list(CATEGORICAL))
    old, new = (Dataset.from_pandas(frame.reset_index(drop=True), data_definition=definition) for frame in drawn)
    kinds = dict.fromkeys(numeric, "numeric") | dict.fromkeys(CATEGORICAL, "categorical")
    metrics = [
        ValueDrift(column=name, method=METHODS[kind], threshold=_limit(name, params)) for name, kind in kinds.items()
    ]
    snapshot = Report(metrics).run(new, old)
    effects = [float(one["value"]) for one in snapshot.dict()["metrics"]]
    rows = [
        {"column": name, "method": METHODS[kind], "effect": effect, "limit": _limit(name, params)}
        for (name, kind), effect in zip(kinds.items(), effects, strict=True)
    ]
    table = pd.DataFrame(rows).set_index("column")
    table["drifted"] = table["effect"] > table["limit"]
    inputs = table.drop(index="prediction", errors="ignore")
    prediction = float(table["effect"]["prediction"]) if "prediction" in table.index else None
    note = f"{len(drawn[1]):,} of {len(current):,} trips of the month against {len(drawn[0]):,} of {len(reference):,} before it, drawn at random (seed {params.seed})"
    return Drift(
        table.sort_values("effect", ascending=False), float(inputs["drifted"].mean()), prediction, note, snapshot
    )


def keep_page(drift: Drift | None, path: Path) -> None:
    """Write Evidently's own page to ``path``, or that there was nothing to compare with.

    It needs no network, because links to fonts and scripts elsewhere are taken out.
    """
    with staged(path) as part:
        if drift is None:
            part.write_text(NOTHING_COMPARED, encoding="utf-8")
            return
        drift.snapshot.save_html(str(part))
        page = part.read_text(encoding="utf-8")
        part.write_text(re.sub(r"<link[^>]+https?://[^>]+>", "", page), encoding="utf-8")


def _project_id(service: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"taxi/{service}")


def _make_project(workspace: Workspace, service: str) -> None:
    """Make the service's project with its picture: how far each column moved, month by month."""
    said = "Each month against the month before it: effect sizes of inputs and predictions"
    project = workspace.add_project(ProjectModel(id=_project_id(service), name=service, description=said))
    columns = (*NUMERIC, *CATEGORICAL)
    values = [PanelMetric(legend=name, metric="ValueDrift", metric_labels={"column": name}) for name in columns]
    panel = DashboardPanelPlot(
        title="Drift by column", subtitle=said, size="full", values=values, plot_params={"plot_type": "line"}
    )
    project.dashboard.add_panel(panel, tab="Drift", create_if_not_exists=True)


def keep_run(drift: Drift, folder: Path, service: str, month: str) -> None:
    """Keep the comparison in Evidently's workspace, dated by its month: `evidently ui --workspace FOLDER` shows the history.

    A month that is run again replaces its own.
    """
    with locked(folder.with_name(f".{folder.name}.lock")):
        workspace, project = Workspace.create(str(folder)), _project_id(service)
        if workspace.get_project(project) is None:
            _make_project(workspace, service)
        model = drift.snapshot.to_snapshot_model()
        model.name, model.timestamp = f"{service} {month}", datetime.fromisoformat(f"{month}-01")
        workspace.state.write_snapshot(project, uuid.uuid5(project, month), model)

"""The metrics store, on SQLite and on a real PostgreSQL server, what is written into it, and what comes out of it."""

import json
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import yaml
from sqlalchemy import create_engine, inspect, text

from taxi.config import Settings
from taxi.database import StoreDown
from taxi.files import read_json
from taxi.monitoring.collect import collect_all
from taxi.monitoring.metric_store import Metric, MetricStore, open_metrics, pipeline_exposition, serve_metrics
from taxi.predictions.store import open_store
from taxi.reporting.live_page import keep_month, write_live_page
from taxi.reporting.pages import build_gallery
from taxi.reporting.plots import line_chart_svg
from taxi.runs.month_result import MonthResult, write_result
from taxi.serving.metrics import exposition
from tests.support.month_results import make_result
from tests.support.postgres import free_port
from tests.support.prediction_rows import make_row
from tests.support.worlds import ROOT, World

MADE = datetime(2024, 5, 1, 12, tzinfo=UTC)


def emptied(address: str) -> str:
    with create_engine(address).begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS metrics, alembic_version_metrics"))
    return address


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetricStore]:
    sqlite = request.param == "sqlite"
    made = open_metrics(
        f"sqlite:///{tmp_path}/place/metrics.db" if sqlite else emptied(request.getfixturevalue("postgres").address)
    )
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("TAXI_PREDICTIONS", "TAXI_METRICS"):
        monkeypatch.delenv(name, raising=False)
    return Settings(ROOT, "unused", tmp_path / "data", tmp_path / "reports", "unused")


def a_result(month: str = "2024-05", **changes: Any) -> MonthResult:
    scores = {"rmse": 6.0, "mae": 4.0, "coverage80": 0.79, "n": 900}
    rows = {"raw": 1000, "kept": 900, "quarantined": 100, "reasons": {"void": 60, "too-long": 40}}
    told = {"status": "done", "verdict": "alarm", "promoted": True, "reason": "better"}
    made = {"champion": {"version": 3, "metrics": scores}, "challenger": None, "seconds": {"fetch": 1.5, "clean": 2.0}}
    return make_result(month, **{"alarms": ["rmse", "volume"], "rows": rows, **told, **made, **changes})


def keep_result(settings: Settings, result: MonthResult) -> None:
    write_result(settings, result)


def fill_log(settings: Settings, hours: int = 3) -> None:
    log = open_store(settings.predictions)
    rows = [
        make_row(
            number, made_at=MADE + timedelta(hours=number % hours), latency_ms=float(number), shadow=number % 10 == 0
        )
        for number in range(60)
    ]
    log.write_predictions(rows)
    log.write_outcomes([{"prediction_id": row["prediction_id"], "duration": row["median"] + 2} for row in rows[:30]])
    log.close()


def test_what_is_written_twice_is_there_once_and_what_is_gone_is_gone(store: MetricStore) -> None:
    first = [Metric("month", "green", "2024-05", "alarm", name, 1) for name in ("rmse", "volume")]
    other = Metric("month", "green", "2024-06", "alarm", "rmse", 1)

    store.replace([*first, other])
    store.replace(first[:1])
    store.replace(first[:1])

    found = store.read("month", "green")
    assert list(zip(found["at"], found["part"], strict=True)) == [("2024-05", "rmse"), ("2024-06", "rmse")]
    assert store.newest("month", "green") == "2024-06" and store.newest("live", "green") is None


def test_kinds_services_and_times_are_kept_apart(store: MetricStore) -> None:
    store.replace([Metric("month", "green", "2024-05", "mae", "champion", 4.0)])
    store.replace([Metric("cost", "green", "2024-05", "seconds", "fetch", 1.0)])
    store.replace([Metric("month", "yellow", "2024-05", "status", text="refused")])

    assert list(store.read("month")["service"]) == ["green", "yellow"]
    assert store.read("month", "yellow")["text"].tolist() == ["refused"]
    assert store.read("month", since="2024-06").empty and len(store.read("cost", "green")) == 1


def test_collecting_months_and_live_traffic_again_changes_nothing(settings: Settings) -> None:
    keep_result(settings, a_result())
    fill_log(settings)
    store = open_metrics(settings.metrics)

    counts = collect_all(settings)
    before = [store.read(kind) for kind in ("month", "live", "cost")]
    assert collect_all(settings) == counts

    assert counts["months"] == 1
    for kind, frame in zip(("month", "live", "cost"), before, strict=True):
        assert store.read(kind).equals(frame) and len(frame)


def test_a_months_scores_rows_alarms_decision_and_cost_are_in_the_store(settings: Settings) -> None:
    paths = settings.month("green", "2024-05")
    paths.raw.parent.mkdir(parents=True)
    paths.raw.write_bytes(b"x" * 1234)

    keep_result(settings, a_result())
    keep_month(settings, "green", "2024-05")

    store = open_metrics(settings.metrics)
    month = store.read("month").set_index(["name", "part"])
    cost = store.read("cost").set_index(["name", "part"])["value"]
    assert month["value"]["mae", "champion"] == 4.0 and month["value"]["rows_refused", "void"] == 60
    assert month["value"]["alarms", ""] == 2 and month["value"]["alarm", "volume"] == 1
    assert json.loads(month["text"]["decision", ""])["reason"] == "alarm: rmse"
    assert cost["seconds", "fetch"] == 1.5 and cost["bytes", "raw"] == 1234


def test_live_metrics_count_judge_and_time_each_arm_by_the_hour(settings: Settings) -> None:
    fill_log(settings)

    collect_all(settings)

    live = open_metrics(settings.metrics).read("live").set_index(["at", "name", "part"])["value"]
    assert live.xs("predictions", level="name").groupby("part").sum().to_dict() == {"champion": 54, "shadow": 6}
    assert live["2024-05-01T12", "mae", "champion"] == pytest.approx(2.0)
    assert live["2024-05-01T12", "latency_p99_ms", "champion"] == pytest.approx(57, abs=1)
    assert live["2024-05-01T12", "judged", "champion"] == 9  # 0, 3, 6 … 27 but for the shadow, 0


def test_a_store_that_is_down_fails_no_month(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_METRICS", f"postgresql+psycopg2://taxi:secret@127.0.0.1:{free_port()}/taxi")

    keep_result(settings, a_result())

    reason = keep_month(settings, "green", "2024-05")

    assert "metrics store" in str(reason) and "secret" not in str(reason)
    with pytest.raises(StoreDown):
        collect_all(settings, ("green",))


def exported(says: str) -> set[str]:
    """Return the names that Prometheus would know after scraping the text, histograms' and counters' own ones too."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", says, re.MULTILINE))
    more = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + end for name, kind in kinds.items() for end in more.get(kind, ("",))}


def test_every_metric_in_a_dashboard_is_exported(settings: Settings) -> None:
    known = exported(exposition().decode()) | exported(pipeline_exposition(open_metrics(settings.metrics)))
    dashboards = sorted((ROOT / "monitoring" / "grafana").glob("*.json"))
    asked = {
        path.stem: [target["expr"] for panel in read_json(path)["panels"] for target in panel["targets"]]
        for path in dashboards
    }

    assert set(asked) == {"pipeline", "service"} and all(len(exprs) > 10 for exprs in asked.values())
    for name, exprs in asked.items():
        for expr in exprs:
            named = set(re.findall(r"\btaxi_[a-z0-9_]+", expr))
            assert named and named <= known, (name, expr, named - known)


def test_what_prometheus_scrapes_is_what_the_commands_serve(settings: Settings) -> None:
    jobs = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]

    ports = {job["job_name"]: job["static_configs"][0]["targets"][0].rpartition(":")[2] for job in jobs}
    assert ports == {"taxi-service": "8000", "taxi-pipeline": "9109"}  # the commands' defaults


@pytest.mark.slow
def test_the_endpoint_speaks_of_a_month_that_came_after_it_was_started(settings: Settings) -> None:
    store = open_metrics(settings.metrics)
    port, server = serve_metrics(store, "127.0.0.1", 0)
    try:
        keep_result(settings, a_result())
        keep_month(settings, "green", "2024-05")
        said = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    finally:
        server.shutdown()

    assert 'taxi_month_mae_minutes{model="champion",month="2024-05",service="green"} 4.0' in said
    assert 'taxi_month_newest_end_timestamp_seconds{service="green"} 1.7172e+09' in said  # 2024-06-01


def test_of_live_traffic_each_arms_newest_hour_is_exported(settings: Settings) -> None:
    fill_log(settings)
    collect_all(settings)

    said = pipeline_exposition(open_metrics(settings.metrics))

    assert 'taxi_live_predictions{arm="champion",service="green"} 18.0' in said
    assert re.search(r'taxi_live_latency_p99_seconds\{arm="champion",service="green"\} 0\.05', said)


def test_the_page_shows_months_live_traffic_and_decisions_and_needs_no_network(settings: Settings) -> None:
    for month in ("2024-05", "2024-07"):
        keep_result(settings, a_result(month, synthetic={"seed": 7}))
    fill_log(settings)
    collect_all(settings)

    page = write_live_page(open_metrics(settings.metrics), settings).read_text(encoding="utf-8")

    assert page.count("<svg") == 10 and "alarm: rmse" in page and "rmse, volume" in page
    assert "2024-06" in page  # a month that is not there is a gap
    assert "Synthetic trips" in page
    assert not re.findall(r"(?:src|href)=[\"']https?:", page)


def test_the_page_of_an_empty_store_says_what_to_do(settings: Settings) -> None:
    page = write_live_page(open_metrics(settings.metrics), settings).read_text(encoding="utf-8")

    assert "The metrics store is empty" in page and "<svg" not in page


def drawn(values: list[float | None], unit: str = "minutes") -> str:
    months = pd.period_range("2024-01", periods=len(values), freq="M")
    return line_chart_svg(pd.DataFrame({"x": values}, index=months, dtype=float), "Error", unit)


def line_of(svg: str) -> tuple[int, int]:
    """How many runs the line has, and how many steps they have."""
    path = re.findall(r'<path d="([^"]+)" clip-path[^>]+#0072b2', svg)[0]
    return path.count("M"), path.count("L")


def words_of(svg: str) -> list[str]:
    return re.findall(r"<text [^>]+>([^<]+)</text>", svg)


def test_a_gap_breaks_a_line_and_ticks_are_round() -> None:
    chart = drawn([1.0, 2.0, None, 3.0, 5.5])

    assert line_of(chart) == (2, 2)
    assert {"0", "2", "4"} <= set(words_of(chart))
    assert {"0", "1"} <= set(words_of(drawn([0, 1, 0]))) and "0.5" not in words_of(drawn([0, 1, 0]))
    assert {"0", "3"} <= set(words_of(drawn([3.0])))
    assert drawn([None]) == ""


def test_in_the_gallery_too_a_month_that_is_not_there_is_a_gap(settings: Settings) -> None:
    for month in ("2024-01", "2024-02", "2024-04", "2024-05"):
        keep_result(settings, a_result(month))

    page = build_gallery(settings.reports).read_text(encoding="utf-8")

    assert page.count("<svg") == 1 and line_of(page) == (2, 2)


def test_a_charts_svg_has_text_units_and_words_to_read_aloud_and_is_the_same_each_time() -> None:
    chart = drawn([1.0, 2.0], "minutes & more")

    assert chart.startswith("<svg ") and 'width="100%"' in chart and 'role="img"' in chart
    assert "Error (minutes &amp; more), 2024-01 to 2024-02; newest: x 2 (2024-02)" in chart
    assert {"Error", "minutes &amp; more", "month", "2024-01", "2024-02"} <= set(words_of(chart))
    assert chart == drawn([1.0, 2.0], "minutes & more")
    ids = re.findall(r' id="([^"]+)"', chart + drawn([1.0, 2.0], "seconds"))
    assert ids and len(ids) == len(set(ids))  # two charts can stand on one page


@pytest.mark.slow
def test_the_commands_collect_show_serve_and_draw(settings: Settings, tmp_path: Path) -> None:
    keep_result(settings, a_result())
    world = World(tmp_path)

    code, answer = world.answer("metrics", "collect")
    shown = world.taxi("metrics", "show", "--prometheus", "--out", str(tmp_path / "taxi.prom"))
    serving = world.start("metrics", "serve", "--port", "0")
    assert serving.stdout
    address = serving.stdout.readline().split()[-1]
    said = httpx.get(address).text
    serving.send_signal(signal.SIGTERM)

    assert (code, answer["months"], Path(answer["page"]).name) == (0, 1, "live.html")
    assert (shown.returncode, serving.wait(20)) == (0, 0)
    assert (tmp_path / "taxi.prom").read_text() == said and "taxi_month_mae_minutes{" in said


def test_a_store_that_is_only_read_is_not_made(store: MetricStore, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/place/metrics.db" if store.address.startswith("sqlite") else store.address

    reader = open_metrics(address.replace("//127", "//postgres@127"), make=False)

    assert [len(reader.read("month")) for _ in range(2)] == [0, 0]
    assert not (tmp_path / "place").exists()
    assert store.address.startswith("sqlite") or not inspect(reader._engine).has_table("metrics")

    store.replace([Metric("month", "green", "2024-01", "rmse", value=4.0)])
    assert len(reader.read("month")) == 1
    reader.close()

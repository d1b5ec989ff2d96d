"""A team's box as compose.yaml describes it, from packages: a month by a deployment, answers through nginx, Prometheus on real series."""

import asyncio
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
import yaml

from taxi.data.synthetic import write_sample
from taxi.serving.replay import read_traffic, requests
from tests.support.automation import SMALL
from tests.support.box import PATIENCE, Box
from tests.support.campaign import only_in_campaign
from tests.support.compose import ROOT
from tests.support.nginx import HOST, NGINX
from tests.support.postgres import running_postgres, why_not
from tests.support.serving_worlds import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.campaign,
    pytest.mark.timeout(3 * PATIENCE),
    only_in_campaign,
]
TINY = SMALL | {"rounds": 30, "head_rounds": 10, "interval_rounds": 10, "planned": False}
MONTH = "2024-01"
SILENT = {  # queries without series in a box that is well, each with the reason
    'sum by (month, alarm) (taxi_month_alarm{service=~"green"})': "no month had an alarm",
}
COMPARISON = re.compile(r"\s*(?:==|!=|>=|<=|>|<)\s*[\d.e]+\s*$")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Everything up but the collector, whose hour has not come; no month was run yet."""
    missing = why_not() or (not NGINX and "nginx is not installed")
    missing = missing or (not shutil.which("prometheus") and "prometheus is not installed")
    if missing:
        pytest.skip(missing)
    place = tmp_path_factory.mktemp("team")
    write_sample(place / "published", "green", [MONTH], rows=1500)
    with running_postgres() as postgres:
        box = Box(place, postgres, {"model": TINY}, {"TAXI_SOURCE": str(place / "published")})
        try:
            box.up("collector")
            yield box
        finally:
            ended = box.down()
    assert ended["service"] == 0, ended


@pytest.fixture(scope="module")
def month(box: Box) -> dict[str, Any]:
    """The flow run of a month, started as a person does on Prefect's page, and run by the worker."""
    with door(box, "prefect", ("admin", box.given["PREFECT_PASSWORD"])) as prefect:
        found = prefect.get("/api/deployments/name/monthly/month").raise_for_status().json()
        asked = {"parameters": {"service": "green", "month": MONTH}}
        run = prefect.post(f"/api/deployments/{found['id']}/create_flow_run", json=asked).raise_for_status().json()

        def ended() -> dict[str, Any] | None:
            time.sleep(1)
            seen: dict[str, Any] = prefect.get(f"/api/flow_runs/{run['id']}").raise_for_status().json()
            return seen if seen["state_type"] in ("COMPLETED", "FAILED", "CRASHED") else None

        seen: dict[str, Any] = wait_for(ended, "the end of the month's run", PATIENCE)
        assert seen["state_type"] == "COMPLETED", (seen["state"], (box.place / "worker.log").read_text()[-6000:])
        return seen


@pytest.fixture(scope="module")
def traffic(box: Box, month: dict[str, Any]) -> list[httpx.Response]:
    """Trips predicted and their outcomes told through nginx, by the first key; afterwards the collector's hour has come."""
    key = (box.place / "secrets" / "first-key").read_text()
    trips = read_traffic(box.place / "volumes/data/trips/green" / f"{MONTH}.parquet", 300)
    asked = requests(trips, "green", MONTH)
    known = [
        {"trip_id": trip["trip_id"], "duration_minutes": minutes}
        for trip, minutes in zip(asked, trips["duration"].tolist(), strict=True)
    ]
    with door(box, "", key=key) as service:
        wait_for(lambda: service.get("/readyz").status_code == 200, "a champion that serves", PATIENCE)
        answers = [service.post("/predict", json=trip) for trip in asked[:100]]
        answers.append(service.post("/predict", json={"trips": asked[100:]}))
        answers.append(service.post("/outcomes", json={"outcomes": known}))
    store = box.services["worker"]["environment"]
    assert store["TAXI_PREDICTIONS"]
    wait_for(lambda: waiting(box) == 0, "the log in the store", 120)
    box.start("collector")
    return answers


def waiting(box: Box) -> float:
    """Return how many rows of the prediction log the service has not written yet."""
    (queued,) = ask(box, "sum(taxi_log_queued_rows)")
    time.sleep(2)
    return float(queued["value"][1])


def door(box: Box, name: str, user: tuple[str, str] | None = None, key: str = "") -> httpx.Client:
    """Return a client of one of nginx's names, which this machine's resolver need not know."""
    host = f"{name}.{HOST}" if name else HOST
    headers = {"Host": host} | ({"X-API-Key": key} if key else {})

    def name_it(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = host

    return httpx.Client(
        base_url=box.nginx.url, verify=box.nginx.trust(), headers=headers, auth=user, timeout=60,
        event_hooks={"request": [name_it]},
    )  # fmt: skip


def ask(box: Box, query: str) -> list[dict[str, Any]]:
    """Return the series that Prometheus answers a query with; fail with its error."""
    url = f"http://127.0.0.1:{box.ports['prometheus']}/api/v1/query"
    answer = httpx.get(url, params={"query": query}, timeout=30).json()
    assert answer["status"] == "success", f"{query}: {answer.get('error')}"
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def dashboard_queries() -> list[tuple[str, str]]:
    """Return each panel's title and query, with Grafana's variables filled in."""
    found = []
    for path in sorted((ROOT / "monitoring/grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "30m").replace("$service", "green")
                found.append((f"{path.stem}: {panel['title']}", query))
    return found


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "monitoring/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_service_is_healthy_and_the_first_champion_is_waited_for(box: Box) -> None:
    for name, service in box.services.items():
        if "healthcheck" in service and name != "grafana":
            box.wait_until_healthy(name)

    assert not [name for name, process in box.processes.items() if process.poll() is not None]


def test_prefects_page_and_websockets_work_through_nginx(box: Box) -> None:
    user = ("admin", box.given["PREFECT_PASSWORD"])
    with door(box, "prefect") as nobody, door(box, "prefect", user) as prefect:
        page, settings = prefect.get("/"), prefect.get("/ui-settings").json()
        refused, own = nobody.post("/api/flows/filter", json={}), prefect.post("/api/flows/filter", json={})

    assert page.status_code in (200, 307) and settings["api_url"] == f"https://prefect.{HOST}/api"
    assert (refused.status_code, own.status_code, settings["auth"]) == (401, 200, "BASIC")
    assert asyncio.run(greet(box, ":".join(user)))["type"] == "auth_success"
    with pytest.raises(websockets.ConnectionClosedError, match="Invalid token"):
        asyncio.run(greet(box, "admin:wrong"))


async def greet(box: Box, secret: str) -> dict[str, Any]:
    """Return what Prefect's stream of events answers to a password, as its page asks."""
    url = f"wss://prefect.{HOST}:{box.nginx.https_port}/api/events/out"
    connection = websockets.connect(
        url, host="127.0.0.1", port=box.nginx.https_port, ssl=box.nginx.trust(), subprotocols=["prefect"]  # type: ignore[list-item]
    )  # fmt: skip
    async with connection as stream:
        await stream.send(json.dumps({"type": "auth", "token": secret}))
        answer: dict[str, Any] = json.loads(await stream.recv())
        return answer


def test_mlflows_pages_work_through_nginx_and_another_sites_pages_may_write_nothing(box: Box) -> None:
    user = ("admin", box.given["MLFLOW_PASSWORD_ADMIN"])
    search = "/ajax-api/2.0/mlflow/experiments/search"
    with door(box, "mlflow") as nobody, door(box, "mlflow", user) as mlflow:
        page = mlflow.get("/")
        files = re.findall(r'(?:src|href)="\.?/?(static-files/[^"]+)"', page.text)
        codes = {mlflow.get(f"/{file}").status_code for file in files}
        answers = [
            mlflow.post(search, json={"max_results": 1}, headers={"Origin": origin}).status_code
            for origin in (f"https://mlflow.{HOST}", "https://elsewhere.example.org")
        ]
        refused = nobody.get("/").status_code

    assert (page.status_code, codes, refused, answers) == (200, {200}, 401, [200, 403])
    assert files


def test_a_month_runs_by_the_deployment_and_its_models_lie_with_mlflow(box: Box, month: dict[str, Any]) -> None:
    status = box.run("taxi", "taxi", "status", "--service", "green")
    lineage = json.loads(box.run("taxi", "taxi", "lineage", "green/champion", "--json").splitlines()[-1])

    assert "1 months on hand" in status and f"trained to {MONTH}" in status
    assert (lineage["verified"], lineage["faults"]) == (True, [])
    assert list((box.place / "volumes/mlflow/artifacts").rglob("MLmodel"))
    assert (box.place / "volumes/data/reports/index.html").is_file()
    assert not [path for name in ("mlruns", "mlflow.db", "prefect.db") for path in box.place.rglob(name)]


def test_nothing_is_written_outside_of_volumes_and_tmp(box: Box, month: dict[str, Any]) -> None:
    made = {path.name for path in (box.place / "volumes").iterdir() if not path.is_symlink()}
    data = {path.name for path in (box.place / "volumes" / "data").iterdir()}

    assert made == {"params.yaml", "notebooks", "monitoring", "data", "mlflow", "prometheus"}
    assert not data & {"mlflow.db", "predictions.db", "metrics.db", ".prefect", "mlruns", "mlartifacts"}


def test_the_services_user_of_mlflow_may_read_and_not_change(box: Box, month: dict[str, Any]) -> None:
    user = ("taxi_service", box.given["MLFLOW_PASSWORD_SERVICE"])
    with door(box, "mlflow", user) as mlflow:
        read = mlflow.get("/api/2.0/mlflow/registered-models/search")
        (model,) = read.json()["registered_models"]
        moved = mlflow.post(
            "/api/2.0/mlflow/registered-models/alias", json={"name": model["name"], "alias": "champion", "version": "1"}
        )

    assert (read.status_code, moved.status_code) == (200, 403)


def test_predictions_and_outcomes_go_through_nginx_by_the_first_key(box: Box, traffic: list[httpx.Response]) -> None:
    assert {answer.status_code for answer in traffic[:-1]} == {200} and traffic[-1].status_code == 202
    with door(box, "") as nobody:
        assert nobody.post("/predict", json={}).status_code == 401


def test_every_alert_rule_is_sound_on_real_series_and_none_fires_but_that_of_old_months(
    box: Box, traffic: list[httpx.Response]
) -> None:
    wait_for(lambda: len(ask(box, "up == 1")) == 2, "both targets", PATIENCE)
    wait_for(lambda: ask(box, 'rate(taxi_requests_total{route="/predict"}[30m]) > 0'), "a rate", 120)
    wait_for(lambda: ask(box, 'ALERTS{alertname="ModelStale",alertstate="pending"}'), "an evaluation, each minute", 180)
    without = [rule["alert"] for rule in alert_rules() if not ask(box, COMPARISON.sub("", rule["expr"]))]
    url = f"http://127.0.0.1:{box.ports['prometheus']}/api/v1/rules"
    states = {
        rule["name"]: (rule["health"], rule["state"])
        for group in httpx.get(url, timeout=30).json()["data"]["groups"]
        for rule in group["rules"]
    }

    assert not without, "a rule that asks for nothing is never ill"
    assert set(states) == {rule["alert"] for rule in alert_rules()}
    assert {health for health, _ in states.values()} == {"ok"}
    firing = [name for name, (_, state) in states.items() if state == "firing"]
    assert not firing and states["ModelStale"][1] == "pending", states


def test_every_dashboard_panel_has_series(box: Box, traffic: list[httpx.Response]) -> None:
    wait_for(lambda: ask(box, "taxi_live_rmse_minutes"), "the collector's hour", PATIENCE)
    time.sleep(5)
    answers = {(panel, query): ask(box, query) for panel, query in dashboard_queries()}

    empty = [what for what, series in answers.items() if not series]
    assert {query for _, query in empty} == set(SILENT)
    numbers = {what: [one["value"][1] for one in series] for what, series in answers.items()}
    assert not [what for what, values in numbers.items() if "NaN" in values and what not in empty], numbers


def test_a_service_that_ends_is_an_alert_and_its_page_says_so(box: Box, traffic: list[httpx.Response]) -> None:
    process = box.processes["service"]
    process.terminate()
    assert process.wait(60) == 0, (box.place / "service.log").read_text()[-3000:]
    with door(box, "") as caller, door(box, "grafana") as grafana:
        answers = [(one.status_code, one.headers["content-type"]) for one in (caller.get("/healthz"), grafana.get("/"))]

    down = wait_for(lambda: ask(box, 'ALERTS{alertname="ServiceDown"}'), "the alert", 120)
    assert down[0]["metric"]["alertstate"] == "pending" and down[0]["metric"]["severity"] == "error"
    assert answers[0] == (503, "application/json") and answers[1][0] == 502
    assert (box.place / "volumes/data/reports" / "green" / MONTH / "month.json").is_file()
    assert Path(box.nginx.place / "access.log").read_text().count("/predict 200") == 101

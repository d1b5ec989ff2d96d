"""The service as its callers meet it: a process, HTTP, a model from a real registry."""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.campaign import at_scale
from tests.support.hostile import BODIES, GOOD, MARK, OUTCOMES
from tests.support.serving_worlds import ROOT, TRIP, Running, ServingWorld, make_world, offline, wait_for
from tests.support.state_table import unnamed
from tests.support.worlds import World

pytestmark = pytest.mark.slow
EXAMPLES, SLOWEST = at_scale(("8", "5"), ("400", "1"))  # of each route; seconds, beside other tests and alone
KEY, OTHER = "first-key-0123456789", "second-key-0123456789"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, small_models: dict[int, Path]) -> ServingWorld:
    return make_world(tmp_path_factory.mktemp("serving"), {1: small_models[1]})


@pytest.fixture(scope="module")
def service(world: ServingWorld) -> Iterator[Running]:
    running = world.running().start().ready()
    yield running
    assert running.stop() == 0, running.log.read_text()


def post(service: Running, body: Any, path: str = "/predict") -> httpx.Response:
    return service.client.post(path, json=body)


def rows(world: ServingWorld, wanted: str, *values: Any) -> list[Any]:
    return sqlite3.connect(world.place / "data" / "predictions.db").execute(wanted, values).fetchall()


def test_a_trip_gets_what_the_model_predicts_offline(service: Running, world: ServingWorld) -> None:
    trips = [
        TRIP | {"PULocationID": 1 + zone, "passenger_count": 1 + zone % 5, "trip_type": 1, "vendor": 2}
        for zone in range(0, 264, 9)
    ]
    expected = offline(world.models[1], trips)

    alone = [post(service, trip).json() for trip in trips]
    together = post(service, {"trips": trips}).json()["predictions"]

    for answers in (alone, together):
        for name in ("mean", "median", "p10", "p90"):
            assert [one[f"{name}_minutes"] for one in answers] == pytest.approx(expected[name].tolist(), abs=1e-6)
        assert {(one["version"], one["arm"], one["service"]) for one in answers} == {(1, "champion", "green")}


def test_every_answer_is_kept_with_its_outcome(service: Running, world: ServingWorld) -> None:
    said = post(service, TRIP | {"trip_id": "kept-1", "planned_distance_miles": 4.5}).json()
    told = post(service, {"outcomes": [{"trip_id": "kept-1", "duration_minutes": 17.5}]}, "/outcomes")

    assert (told.status_code, told.json()) == (202, {"accepted": 1})
    wanted = "SELECT mean, version, planned_distance_miles, trip_id FROM predictions WHERE prediction_id = ?"
    kept = wait_for(lambda: rows(world, wanted, said["prediction_id"]), "the row", 60)
    assert kept == [(said["mean_minutes"], 1, 4.5, "kept-1")]
    assert wait_for(
        lambda: rows(world, "SELECT duration FROM outcomes WHERE trip_id = 'kept-1'"), "the outcome", 20
    ) == [(17.5,)]
    assert unnamed(world.place / "data") == []


def test_a_thousand_trips_are_answered_in_one_request(service: Running) -> None:
    answer = post(service, {"trips": [TRIP] * 1000})

    assert answer.status_code == 200
    assert len({one["prediction_id"] for one in answer.json()["predictions"]}) == 1000


def test_it_says_what_serves_and_how_it_is(service: Running) -> None:
    assert service.client.get("/healthz").json() == {"status": "alive"}
    assert service.client.get("/readyz").json() == {"status": "ready"}
    model = service.client.get("/model").json()
    assert model["champion"]["version"] == 1 and len(model["champion"]["sha256"]) == 64
    assert model["challenger"] is None and model["refused"] == [] and model["registry"] == "answers"


def test_its_numbers_are_prometheus_and_add_up(service: Running) -> None:
    def read() -> dict[str, float]:
        lines = [line for line in service.client.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    before = read()
    post(service, {"trips": [TRIP] * 3})
    post(service, {"PULocationID": 0})
    service.client.get(f"/{MARK}")
    after = read()

    first = (
        'taxi_errors_total{route="/predict"}',
        'taxi_errors_total{route="other"}',
        'taxi_swaps_total{arm="challenger"}',
    )
    assert 'taxi_request_seconds_count{route="/outcomes"}' in before
    assert [before[name] for name in first] == [0, 0, 0], "a rate does not see a series that begins at 1"
    gained = {name: after[name] - before.get(name, 0) for name in after}
    assert gained['taxi_predictions_total{arm="champion"}'] == 3
    assert gained['taxi_requests_total{route="/predict",status="200"}'] == 1
    assert gained['taxi_requests_total{route="/predict",status="422"}'] == 1
    assert gained['taxi_request_seconds_count{route="/predict"}'] == 2
    assert gained['taxi_requests_total{route="other",status="404"}'] == 1
    assert after['taxi_model_version{arm="champion"}'] == 1 and after['taxi_swaps_total{arm="champion"}'] == 1
    assert after['taxi_model_age_seconds{arm="champion"}'] > 0
    assert {"taxi_log_queued_rows", "taxi_log_lost_rows", "taxi_degraded", "taxi_refused_versions"} <= set(after)
    assert MARK not in str(after)


@pytest.mark.parametrize(("path", "bodies"), [("/predict", BODIES), ("/outcomes", OUTCOMES)])
def test_hostile_bodies_get_a_clear_4xx_soon_and_are_not_repeated(
    service: Running, path: str, bodies: list[bytes]
) -> None:
    for body in bodies:
        began = time.monotonic()
        answer = service.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, (body[:80], answer.text)
        assert answer.json()["error"]["message"] and MARK not in answer.text
        assert answer.headers["content-type"] == "application/json"
        assert time.monotonic() - began < 5
    assert post(service, TRIP).status_code == 200


def test_too_large_untyped_and_unknown_requests_are_explained(service: Running) -> None:
    large = service.client.post("/predict", content=b" " * 1_000_001, headers={"Content-Type": "application/json"})
    larger = service.client.post(
        "/predict", content=(b" " * 100_000 for _ in range(60)), headers={"Content-Type": "application/json"}
    )
    as_large_as_allowed = json.dumps(TRIP).encode().ljust(1_000_000)

    assert [large.status_code, larger.status_code] == [413, 413] and "1,000,000" in large.json()["error"]["message"]
    assert (
        service.client.post(
            "/predict", content=as_large_as_allowed, headers={"Content-Type": "application/json; charset=utf-8"}
        ).status_code
        == 200
    )
    assert service.client.post("/predict", content=json.dumps(TRIP)).status_code == 415
    assert service.client.post("/predict", data=GOOD).status_code == 415
    assert (
        service.client.get("/predict").status_code == 405
        and service.client.get("/predict").json()["error"]["code"] == "no-such-method"
    )
    assert service.client.get("/docs").json()["error"]["code"] == "no-such-route"


def test_another_host_name_is_not_served_without_keys(service: Running) -> None:
    answer = service.client.post("/predict", json=TRIP, headers={"Host": "rebound.example"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "host")


def test_the_service_does_not_say_what_it_is_made_of(service: Running) -> None:
    for answer in (service.client.get("/nothing"), post(service, {}), service.client.get("/")):
        assert "server" not in answer.headers
        assert not [word for word in ("uvicorn", "python", "Traceback", "site-packages") if word in answer.text]


@pytest.fixture(scope="module")
def locked(world: ServingWorld, service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A second service beside the first, with a file of keys and two workers; the file is its attribute ``keys``."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY, encoding="utf-8")
    data = shutil.copytree(world.place / "data" / "zones", keys.parent / "data" / "zones").parent
    running = world.running("--workers", "2", TAXI_API_KEYS_FILE=str(keys), TAXI_DATA=str(data))
    running.keys = keys  # type: ignore[attr-defined]
    running.start().ready()
    yield running
    assert running.stop() == 0, running.log.read_text()


def with_key(service: Running, key: str, path: str = "/predict") -> int:
    """Ask over a new connection, so that either worker may answer."""
    return httpx.post(f"{service.url}{path}", json=TRIP, headers={"X-API-Key": key}, timeout=30).status_code


@pytest.mark.campaign
@pytest.mark.timeout(at_scale(600, 1800))
def test_generated_requests_of_every_kind_find_no_fault(locked: Running) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{locked.url}/openapi.json",
        "--checks",
        "all",
        "--seed",
        "1",
    ]
    options = [
        "--max-examples",
        EXAMPLES,
        "--phases",
        "examples,coverage,fuzzing",
        "--request-timeout",
        "10",
        "--max-response-time",
        SLOWEST,
    ]
    quiet = ["--generation-database", "none", "--no-color", "--continue-on-failure", "-H", f"X-API-Key: {KEY}"]

    hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *options, *quiet],
        capture_output=True,
        text=True,
        check=False,
        timeout=at_scale(300, 1500),
        env=hooks,
    )

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_without_a_key_only_the_probes_the_page_and_the_description_are_open(locked: Running) -> None:
    opened = {
        path
        for path in ("/", "/healthz", "/readyz", "/openapi.json", "/model", "/metrics", "/nothing")
        if locked.client.get(path).is_success
    }

    assert opened == {"/", "/healthz", "/readyz", "/openapi.json"}
    refusal = locked.client.post("/predict", json=TRIP, headers={"X-API-Key": f"{KEY}x"})
    assert (refusal.status_code, refusal.headers["www-authenticate"]) == (401, "Bearer")
    assert KEY not in refusal.text
    assert locked.client.post("/predict", json=TRIP, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_keys_are_rotated_while_it_runs(locked: Running) -> None:
    keys: Path = locked.keys  # type: ignore[attr-defined]

    keys.write_text(f"{KEY}\n{OTHER}\n", encoding="utf-8")
    wait_for(lambda: {with_key(locked, OTHER) for _ in range(6)} == {200}, "the new key", 60)
    assert with_key(locked, KEY) == 200
    keys.write_text(OTHER, encoding="utf-8")
    wait_for(lambda: {with_key(locked, KEY) for _ in range(6)} == {401}, "the old key's end", 60)
    keys.write_text("", encoding="utf-8")
    time.sleep(1)
    assert with_key(locked, OTHER) == 200, "an empty file must not open the service"
    roles = f"# who may what\nname=web-2;roles=predict;key={OTHER}\nname=all;key={KEY}\n"
    keys.write_text(roles, encoding="utf-8")
    wait_for(lambda: {with_key(locked, KEY) for _ in range(6)} == {200}, "the first key again", 60)
    assert (with_key(locked, OTHER), with_key(locked, OTHER, "/model/refresh")) == (200, 403)
    assert with_key(locked, KEY, "/model/refresh") == 202
    wait_for(lambda: "API key all asked for a look" in locked.log.read_text(), "the name of who asked, in the log", 20)
    keys.write_text(KEY, encoding="utf-8")
    wait_for(lambda: with_key(locked, OTHER) == with_key(locked, OTHER) == 401, "the first key alone", 60)


def test_two_workers_answer_and_add_up_their_numbers(locked: Running) -> None:
    for _ in range(40):
        assert with_key(locked, KEY) == 200

    text = httpx.get(f"{locked.url}/metrics", headers={"X-API-Key": KEY}).text
    counted = re.search(r'taxi_predictions_total\{arm="champion"\} (\S+)', text)
    swaps = re.search(r'taxi_swaps_total\{arm="champion"\} (\S+)', text)

    assert counted and float(counted[1]) >= 40
    assert swaps and float(swaps[1]) == 2


def test_too_many_requests_are_told_when_to_come_again(world: ServingWorld, locked: Running) -> None:
    world.set_params("serve", rate_per_second=1, burst=2)

    refusal = wait_for(
        lambda: next((one for one in (post_key(locked) for _ in range(5)) if one.status_code == 429), None), "a 429", 20
    )

    assert int(refusal.headers["retry-after"]) >= 1 and refusal.json()["error"]["code"] == "rate"
    assert locked.client.get("/readyz").status_code == 200
    world.set_params("serve", rate_per_second=1000, burst=2000)
    wait_for(lambda: post_key(locked).status_code == 200, "the old rate", 60)


def post_key(service: Running) -> httpx.Response:
    return httpx.post(f"{service.url}/predict", json=TRIP, headers={"X-API-Key": KEY}, timeout=30)


def test_parameters_that_make_no_sense_change_nothing(world: ServingWorld, service: Running) -> None:
    good = world.params.read_text(encoding="utf-8")
    try:
        world.set_params("serve", burst="many")
        wait_for(lambda: "the rules stay as they were" in service.log.read_text(), "the complaint", 60)
        assert post(service, TRIP).status_code == 200
    finally:
        world.params.write_text(good, encoding="utf-8")


def talk(service: Running, *parts: bytes, pause: float = 0) -> bytes:
    """Send bytes as they are, and return all that comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_not_http_is_answered_in_json_and_silence_is_ended(world: ServingWorld, service: Running) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"

    nonsense = talk(service, b"\x16\x03\x01 hello\r\n\r\n")
    assert nonsense.startswith(b"HTTP/1.1 400") and b'"not-http"' in nonsense
    world.set_params("serve", body_seconds=0.5)
    try:
        time.sleep(1)
        for begun in (b"POST /pre", head, head + b"\r\n{"):
            assert talk(service, begun).startswith(b"HTTP/1.1 408"), begun
    finally:
        world.set_params("serve", body_seconds=10)


@pytest.mark.parametrize(
    ("words", "environment", "says"),
    [
        (("--host", "0.0.0.0"), {}, "only localhost needs none"),
        ((), {"TAXI_API_KEYS": "short"}, "16 or more"),
        (("--port", "1"), {}, "expected a free address"),
        ((), {"TAXI_PREDICTIONS": "mysql://x"}, "prediction store"),
        ((), {}, "expected no other `taxi serve` of this service"),
    ],
)
def test_a_service_that_should_not_start_says_why(
    world: ServingWorld,
    service: Running,
    tmp_path: Path,
    words: tuple[str, ...],
    environment: dict[str, str],
    says: str,
) -> None:
    if words or environment:
        environment = environment | {"TAXI_DATA": str(tmp_path)}
    if "--port" in words and os.geteuid() == 0:
        words = ("--host", "192.0.2.1")  # an address that no machine has
        environment = environment | {"TAXI_API_KEYS": KEY}
    started = World(world.place, world.environment | environment, world.place / "checkout")

    done = started.taxi("serve", "--service", "green", "--port", "0", *words)

    assert done.returncode == 2, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr


def browse(service: Running, folder: Path, fragment: str, *words: str) -> str:
    """Open the page in a browser of its own, and return the document after its script has run."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --virtual-time-budget=15000 --window-size=1280,1000 --dump-dom"
    command = [
        chromium,
        *flags.split(),
        *more.split(),
        f"--user-data-dir={folder}",
        *words,
        f"{service.url}/{fragment}",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180).stdout


def test_a_person_sees_the_estimate_with_its_interval(service: Running, world: ServingWorld, tmp_path: Path) -> None:
    expected = offline(world.models[1], [TRIP])

    seen = browse(service, tmp_path, f"#from={TRIP['PULocationID']}&to={TRIP['DOLocationID']}&at=2024-02-06T08:15")

    said = re.search(r'<output id="answer"[^>]*data-state="done">(.*?)</output>', seen, re.DOTALL)
    assert said, seen[-3000:]
    low, high = (f"{expected[name].iloc[0]:.0f}" for name in ("p10", "p90"))
    assert f"{expected['median'].iloc[0]:.0f} minutes" in said[1]
    assert f"Eight trips in ten take {low} to {high} minutes" in said[1]
    assert 'class="from"' in seen and 'class="to"' in seen


def test_a_person_who_has_chosen_nothing_sees_the_map_and_the_zones(service: Running, tmp_path: Path) -> None:
    seen = browse(service, tmp_path, "")

    assert 'data-state="empty"' in seen
    assert seen.count("<path d=") > 200 and seen.count("<option") > 500


def test_a_page_of_a_service_with_keys_asks_for_one(locked: Running) -> None:
    page = locked.client.get("/")

    assert 'id="key"' in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY" and page.headers["x-content-type-options"] == "nosniff"


def processes(service: Running) -> dict[str, list[psutil.Process]]:
    """Return the service's processes by what they are, once all are there: two workers; the follower and the log's writer; what these are forked from."""
    found: dict[str, list[psutil.Process]] = {"workers": [], "others": []}
    try:
        children = psutil.Process(service.process.pid).children()
        found["imported"] = [one for one in children if "forkserver" in " ".join(one.cmdline())]
        for one in [child for parent in found["imported"] for child in parent.children()]:
            found["workers" if one.net_connections() else "others"].append(one)
    except psutil.NoSuchProcess as error:
        raise AssertionError("a process ended meanwhile") from error
    assert {name: len(several) for name, several in found.items()} == {"workers": 2, "others": 2, "imported": 1}
    return found


def test_whatever_ends_is_started_again(locked: Running) -> None:  # last: the others ask the processes that it ends
    ends = (("workers", "kill"), ("workers", "terminate"), ("others", "kill"), ("imported", "kill"))
    for name, end in ends:
        before = wait_for(lambda: processes(locked), "the service's processes")
        ending = before[name][:1] if name == "workers" else before[name]
        gone = [one for several in before.values() for one in several] if name == "imported" else ending

        for process in ending:
            getattr(process, end)()

        wait_for(lambda: not any(map(psutil.Process.is_running, gone)), f"the end of {name}")  # noqa: B023
        wait_for(lambda: processes(locked), f"{name} again")
        wait_for(lambda: post_key(locked).status_code == 200, "an answer")

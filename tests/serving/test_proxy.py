"""The service behind nginx, as nginx.conf.template sets it up: TLS alone, keys, limits, and restarts that nobody notices."""

import os
import re
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from taxi.params import load_params
from tests.support.campaign import at_scale
from tests.support.nginx import HOST, NGINX, Nginx, make_certificate, running_nginx
from tests.support.serving_worlds import ROOT, TRIP, Running, ServingWorld, make_world, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]
KEY, SCRAPER = "first-key-0123456789", "second-key-0123456789"
KEYS = f"name=web;roles=predict+outcomes;key={KEY} name=prometheus;roles=read;key={SCRAPER}"


@pytest.fixture(scope="module")
def behind(
    tmp_path_factory: pytest.TempPathFactory, small_models: Mapping[int, Path]
) -> Iterator[tuple[Running, Nginx]]:
    """A service of two workers that takes nginx's word for the caller's address, and nginx before it."""
    place = tmp_path_factory.mktemp("proxy")
    world: ServingWorld = make_world(place / "world", {1: small_models[1]})
    running = world.running("--workers", "2", TAXI_API_KEYS=KEYS, TAXI_PROXIES="127.0.0.1").start().ready()
    (place / "nginx").mkdir()
    try:
        with running_nginx(place / "nginx", service=running.url.removeprefix("http://")) as proxy:
            yield running, proxy
    finally:
        assert running.stop() == 0, running.log.read_text()


def client(proxy: Nginx, key: str = KEY, verify: bool = True) -> httpx.Client:
    """Return a client that trusts the certificate, and no other."""
    return httpx.Client(
        base_url=proxy.url, verify=proxy.trust() if verify else False, headers={"X-API-Key": key}, timeout=30
    )


def test_its_limits_are_the_services() -> None:
    text = (ROOT / "nginx.conf.template").read_text(encoding="utf-8")
    (service,) = re.findall(r"server_name \$\{TAXI_HOST\};(.*?)\n}", text, re.DOTALL)
    params = load_params(ROOT / "params.yaml").serve

    numbers = dict(re.findall(r"^  (client_\w+|proxy_read_timeout) (\d+)s?;", service, re.MULTILINE))
    kept = re.search(r"^  keepalive_timeout (\d+)s;", text, re.MULTILINE)

    assert int(numbers["client_max_body_size"]) == params.body_bytes
    assert int(numbers["client_body_timeout"]) == int(numbers["client_header_timeout"]) == params.body_seconds
    assert int(numbers["proxy_read_timeout"]) > params.answer_seconds
    assert kept and int(kept[1]) < params.drain_seconds


def test_tls_is_asked_for_and_an_old_one_is_refused(behind: tuple[Running, Nginx]) -> None:
    _, proxy = behind
    plain = f"{proxy.plain_url}/model?x=1"

    led, leaked = httpx.get(plain), httpx.get(plain, headers={"X-API-Key": KEY})

    assert (led.status_code, led.headers["location"]) == (301, f"{proxy.url}/model?x=1")
    assert leaked.status_code == httpx.post(plain, json=TRIP).status_code == 403, "a key without TLS is not led on"
    for version, accepted in (("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)):
        assert speaks(proxy, ssl.TLSVersion[version]) is accepted, version
    assert client(proxy).get("/healthz").headers["strict-transport-security"]


def speaks(proxy: Nginx, version: ssl.TLSVersion) -> bool:
    context = proxy.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    try:
        with socket.create_connection(("127.0.0.1", proxy.https_port)) as raw:
            with context.wrap_socket(raw, server_hostname=HOST):
                return True
    except ssl.SSLError:
        return False


def test_keys_and_their_roles_work_through_it(behind: tuple[Running, Nginx]) -> None:
    running, proxy = behind
    with client(proxy) as web, client(proxy, SCRAPER) as scraper, client(proxy, "") as nobody:
        codes = {
            (name, path): getattr(caller, method)(path, **({"json": TRIP} if method == "post" else {})).status_code
            for name, caller in (("web", web), ("prometheus", scraper), ("", nobody))
            for method, path in (("post", "/predict"), ("get", "/metrics"), ("get", "/readyz"))
        }
    assert codes == {
        ("web", "/predict"): 200, ("web", "/metrics"): 403, ("web", "/readyz"): 200,
        ("prometheus", "/predict"): 403, ("prometheus", "/metrics"): 200, ("prometheus", "/readyz"): 200,
        ("", "/predict"): 401, ("", "/metrics"): 401, ("", "/readyz"): 200,
    }  # fmt: skip
    log = (proxy.place / "access.log").read_text() + running.log.read_text()
    assert KEY not in log and SCRAPER not in log


def test_a_request_id_is_kept_and_what_a_caller_says_of_his_address_is_not(behind: tuple[Running, Nginx]) -> None:
    _, proxy = behind
    with client(proxy) as web:
        own = web.get("/healthz", headers={"X-Request-ID": "mine-1", "X-Forwarded-For": "10.9.8.7"})
        made = web.get("/healthz", headers={"X-Request-ID": "not one"})

    assert own.headers["x-request-id"] == "mine-1"
    assert re.fullmatch(r"[0-9a-f]{32}", made.headers["x-request-id"])
    (line,) = [line for line in (proxy.place / "access.log").read_text().splitlines() if line.endswith("mine-1")]
    assert line.startswith("127.0.0.1 ") and "10.9.8.7" not in line


def test_what_is_too_large_or_cannot_be_had_is_answered_in_the_services_form(behind: tuple[Running, Nginx]) -> None:
    _, proxy = behind
    with client(proxy) as web:
        answers = [
            web.post("/predict", content=b"x" * 1_000_001, headers={"Content-Type": "application/json"}),
            web.get("/healthz", headers={"X-Long": "x" * 63_000, "X-Longer": "x" * 3_000}),
            web.get("/healthz", headers={"X-Long": "x" * 70_000}),
        ]

    codes = [(one.status_code, one.json()["error"]["code"]) for one in answers]
    assert codes == [(413, "too-large"), (431, "large-head"), (431, "large-head")]
    assert all(set(one.json()["error"]) == {"code", "message", "fields"} for one in answers)


@contextmanager
def asking(proxy: Nginx, verify: bool = True) -> Iterator[Counter[str]]:
    """Ask all the while, by connections kept and by new ones; count the answers."""
    came: Counter[str] = Counter()
    ending = threading.Event()

    def ask(lasting: bool) -> None:
        web = client(proxy, verify=verify)
        while not ending.is_set():
            if not lasting:
                web.close()
                web = client(proxy, verify=verify)
            try:
                came[str(web.post("/predict", json=TRIP).status_code)] += 1
            except httpx.RemoteProtocolError:  # a kept connection that was closed meanwhile: any client asks again
                came["closed"] += 1
            except httpx.HTTPError as error:
                came[repr(error)] += 1
            time.sleep(0.005)

    callers = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(4)]
    for caller in callers:
        caller.start()
    try:
        yield came
    finally:
        ending.set()
        for caller in callers:
            caller.join()


def workers(running: Running) -> list[psutil.Process]:
    """Return the processes that listen on the service's socket, but for their supervisor."""
    port = int(running.url.rpartition(":")[2])
    family = psutil.Process(running.process.pid).children(recursive=True)
    return [one for one in family if any(c.laddr.port == port for c in one.net_connections() if c.status == "LISTEN")]


def repeat(what: Callable[[], None], times: int) -> None:
    for _ in range(times):
        what()


@pytest.mark.campaign
def test_a_worker_that_is_asked_to_end_loses_no_request(behind: tuple[Running, Nginx]) -> None:
    running, proxy = behind

    def end_one() -> None:
        before = workers(running)
        os.kill(before[0].pid, signal.SIGTERM)
        before[0].wait(30)
        wait_for(lambda: len(workers(running)) >= len(before), "another worker", 60)

    with asking(proxy) as came:
        time.sleep(0.3)
        repeat(end_one, at_scale(1, 10))

    assert set(came) == {"200"} and came["200"] > 50, came


def shown(proxy: Nginx) -> str:
    return ssl.get_server_certificate(("127.0.0.1", proxy.https_port))


@pytest.mark.campaign
def test_a_new_certificate_is_taken_without_losing_a_request(behind: tuple[Running, Nginx]) -> None:
    _, proxy = behind
    old = shown(proxy)

    def renew() -> None:
        make_certificate(proxy.place / "new")
        for name in ("privkey.pem", "fullchain.pem"):
            os.replace(proxy.place / "new" / name, proxy.place / "tls" / name)
        proxy.signal("reload")
        wait_for(lambda: shown(proxy) == proxy.certificate.read_text(), "the new certificate", 20)
        time.sleep(0.3)

    with asking(proxy, verify=False) as came:
        time.sleep(0.3)
        repeat(renew, at_scale(1, 10))

    assert shown(proxy) != old
    assert set(came) <= {"200", "closed"} and came["200"] > 20, came

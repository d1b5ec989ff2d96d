"""A new champion takes over under load without a failed request; a bad one never does."""

import gzip
import json
import os
import pickle
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from taxi.files import read_json, sha256_tree, write_json
from tests.support.campaign import at_scale
from tests.support.load import Tally, hammer_while
from tests.support.serving_worlds import TRIP, Running, ServingWorld, make_world, offline, wait_for

pytestmark = pytest.mark.slow
SWAPS = at_scale(2, 20)  # benchmarks.serving swaps 20 times in 30 s, and measures
BODIES = [TRIP | {"PULocationID": 1 + zone, "DOLocationID": 1 + (zone * 7) % 265} for zone in range(0, 264, 11)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, small_models: dict[int, Path]) -> ServingWorld:
    return make_world(tmp_path_factory.mktemp("swaps"), small_models)


@pytest.fixture(scope="module")
def service(world: ServingWorld) -> Iterator[Running]:
    running = world.running().start().ready()
    yield running
    assert running.stop() == 0, running.log.read_text()


def during(service: Running, act: Callable[[], None]) -> Tally:
    return hammer_while(act, service.url, BODIES, 3, 0.01)


def assert_as_offline(tally: Tally, models: dict[int, Path]) -> None:
    expected = {version: offline(folder, BODIES) for version, folder in models.items()}
    place = {json.dumps(body): row for row, body in enumerate(BODIES)}
    for one in tally.answers:
        row = expected[one.got["version"]].iloc[place[json.dumps(one.sent)]]
        assert [one.got[f"{name}_minutes"] for name in row.index] == pytest.approx(row.tolist(), abs=1e-6)


@pytest.mark.campaign
def test_swaps_under_load_fail_no_request_and_every_answer_is_its_versions(
    service: Running, world: ServingWorld
) -> None:
    def swap() -> None:
        for number in range(SWAPS):
            version = 2 - number % 2
            world.registry.alias("champion", version)
            service.client.post("/model/refresh")
            service.serves(version)

    tally = during(service, swap)

    assert tally.failed == [] and tally.refused == 0
    assert len(tally.answers) > 10 * SWAPS
    assert {one.got["version"] for one in tally.answers} == {1, 2}
    assert_as_offline(tally, world.models)


def add(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(kept: Path) -> None:
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(content)

    return spoil


def flip(name: str) -> Callable[[Path], None]:
    def spoil(kept: Path) -> None:
        path = next(kept.glob(f"data/*/{name}"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return spoil


def cut(kept: Path) -> None:
    path = next(kept.glob("data/*/mean.ubj"))
    path.write_bytes(path.read_bytes()[:-100])


def drop(kept: Path) -> None:
    next(kept.glob("data/*/tables.npz")).unlink()


def link(kept: Path) -> None:
    path = next(kept.glob("data/*/recipe.json"))
    path.rename(kept / "elsewhere.json")
    path.symlink_to(kept / "elsewhere.json")


def reload(kept: Path) -> None:
    path = kept / "MLmodel"
    path.write_text(path.read_text(encoding="utf-8").replace("taxi.pyfunc", "os"), encoding="utf-8")


def flavour(kept: Path) -> None:
    path = kept / "MLmodel"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("flavors:", "flavors:\n  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle}"),
        encoding="utf-8",
    )


PICKLE = pickle.dumps({"a": 1})
SPOILT: dict[str, Callable[[Path], None]] = {
    "a changed byte of a booster": flip("mean.ubj"),
    "a changed byte of the tables": flip("tables.npz"),
    "a booster cut short": cut,
    "a missing file": drop,
    "a pickle beside the files": add("data/winner/model.pkl", PICKLE),
    "a gzipped pickle under a good name": add("data/winner/mean.ubj", gzip.compress(PICKLE)),
    "code to import": add("code/evil.py", b"raise SystemExit"),
    "a symbolic link": link,
    "another loader": reload,
    "another flavour": flavour,
}


FEW = ("a changed byte of a booster", "a pickle beside the files", "another loader")  # test_integrity has all, alone


def remade(world: ServingWorld, name: str, change: Callable[[Path], None]) -> Path:
    """Return a copy of a model that was changed before it was registered, so that its digests are right."""
    folder = world.place / "bad" / name
    shutil.copytree(world.models[1], folder)
    change(folder)
    return folder


def other_format(folder: Path) -> None:
    write_json(folder / "recipe.json", read_json(folder / "recipe.json") | {"format": 99})


def nonsense_booster(folder: Path) -> None:
    (folder / "mean.ubj").write_bytes(b"{" + b"\x00" * 5000)


def bad_versions(world: ServingWorld) -> dict[str, int]:
    registry, good = world.registry, world.models[1]
    made = {name: registry.register(good, SPOILT[name]) for name in at_scale(FEW, tuple(SPOILT))}
    wrong_golden = registry.client.get_model_version("taxi-green", "2").tags["golden"]
    made["golden trips of another model"] = registry.register(good, golden=wrong_golden)
    made["no golden trips"] = registry.register(good, golden="")
    unloadable = {"another format": other_format, "a booster of nonsense": nonsense_booster}
    for name in at_scale(("a booster of nonsense",), tuple(unloadable)):
        made[name] = registry.register_unloaded(remade(world, name, unloadable[name]), good)
    return made


@pytest.mark.campaign
def test_bad_versions_of_many_kinds_are_refused_and_fail_no_request(service: Running, world: ServingWorld) -> None:
    world.registry.alias("champion", 1)
    service.serves(1)
    bad = bad_versions(world)
    reasons: dict[str, str] = {}

    def refused(version: int) -> Any:
        said = service.client.get("/model").json()
        return next((one["reason"] for one in said["refused"] if one["version"] == version), None)

    def try_all() -> None:
        for name, version in bad.items():
            world.registry.alias("champion", version)
            service.client.post("/model/refresh")
            reasons[name] = wait_for(lambda version=version: refused(version), f"refusal of {name}: {version}")

    tally = during(service, try_all)

    assert tally.failed == [] and tally.refused == 0
    assert {one.got["version"] for one in tally.answers} == {1}
    assert_as_offline(tally, world.models)
    assert len(set(reasons.values())) > len(bad) // 2, reasons
    assert not [reason for reason in reasons.values() if str(world.place) in reason]
    assert "taxi_refused_versions 1.0" in service.client.get("/metrics").text
    world.registry.alias("champion", 2)
    service.serves(2)
    assert service.client.get("/model").json()["refused"] == []


def test_a_version_that_was_registered_by_other_means_changes_nothing(service: Running, world: ServingWorld) -> None:
    before = service.client.get("/model").json()["champion"]
    source = world.registry.client.get_model_version("taxi-green", "1").source
    bare = world.registry.client.create_model_version("taxi-green", source)

    world.registry.alias("champion", int(bare.version))

    wait_for(lambda: service.client.get("/readyz").json() == {"status": "degraded"}, "that it is degraded")
    assert service.client.get("/model").json()["champion"] == before
    world.registry.alias("champion", 2)
    wait_for(lambda: service.client.get("/readyz").json() == {"status": "ready"}, "that it is ready")


def test_a_number_that_does_not_exist_changes_nothing(service: Running, world: ServingWorld) -> None:
    before = service.client.get("/model").json()["champion"]
    made = world.registry.register(world.models[1])
    world.registry.alias("challenger", made)
    service.serves(made, "challenger")
    world.registry.client.delete_model_version("taxi-green", str(made))

    wait_for(lambda: service.client.get("/model").json()["challenger"] is None, "the challenger's end")

    assert service.client.get("/model").json()["champion"] == before


def test_the_experiment_follows_params_while_it_runs(service: Running, world: ServingWorld) -> None:
    world.registry.alias("champion", 1)
    world.registry.alias("challenger", 2)
    service.serves(1).serves(2, "challenger")
    trips = [TRIP | {"trip_id": f"trip-{one}"} for one in range(200)]

    def arms() -> dict[str, str]:
        said = service.client.post("/predict", json={"trips": trips}).json()["predictions"]
        return {one["trip_id"]: one["arm"] for one in said}

    def challengers() -> int:
        return sum(arm == "challenger" for arm in arms().values())

    assert challengers() == 0
    world.set_params("experiment", mode="share", share=0.5, salt="a")
    wait_for(lambda: 60 < challengers() < 140, "half of the trips")
    half = arms()
    world.set_params("experiment", share=0.8)
    wait_for(lambda: challengers() > 140, "more of the trips")
    assert all(arm == "challenger" for trip, arm in arms().items() if half[trip] == "challenger")
    world.set_params("experiment", mode="none")
    wait_for(lambda: challengers() == 0, "none of the trips")
    assert sha256_tree(world.models[1]) == service.client.get("/model").json()["champion"]["sha256"]


def test_a_registry_whose_file_is_taken_away_is_no_registry_that_answers(
    service: Running, world: ServingWorld, tmp_path: Path
) -> None:
    world.registry.alias("champion", 1)
    service.serves(1)
    database = Path(world.registry.uri.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    database.rename(tmp_path / "away.db")
    wait_for(lambda: service.client.get("/readyz").json() == {"status": "degraded"}, "that it is degraded")
    assert service.client.post("/predict", json=TRIP).json()["version"] == 1 and not database.exists()
    (tmp_path / "away.db").rename(database)

    wait_for(lambda: service.client.get("/readyz").json() == {"status": "ready"}, "that it is ready")


def processes(service: Running, which: str) -> list[psutil.Process]:
    """Return the processes to be ended: the supervisor, all of them, or those that take no connections: follower and writer."""
    supervisor = psutil.Process(service.process.pid)
    everything = [supervisor, *supervisor.children(recursive=True)]
    if which == "followers":
        warm = next(one for one in everything if "forkserver" in " ".join(one.cmdline()))
        return [one for one in warm.children() if not one.net_connections()]
    return everything if which == "everything" else [supervisor]


def of_session(leader: int) -> list[psutil.Process]:
    """Return the processes of a service, of which its supervisor was the first, that live."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


ENDS = [
    ("followers", "kill"),
    ("supervisor", "terminate"),
    ("followers", "terminate"),
    ("everything", "kill"),
    ("supervisor", "kill"),
]
POINTS = at_scale(1, 40)


@pytest.mark.campaign
@pytest.mark.timeout(at_scale(600, 3600))
def test_ends_at_any_point_of_serving_and_examining_refuse_no_good_version(
    service: Running, world: ServingWorld
) -> None:
    draw, seen = random.Random(17), 0
    for number in range(POINTS):
        target, (which, end) = 1 + number % 2, ENDS[number % len(ENDS)]
        world.registry.alias("champion", 3 - target)
        service.serves(3 - target)
        examining = world.place / "data" / "serving" / "green" / "examining.json"
        world.registry.alias("champion", target)
        service.client.post("/model/refresh")
        until = time.monotonic() + (30 if number % 3 == 0 else draw.uniform(0, 2))  # at its sight, or at any point
        while time.monotonic() < until and not (number % 3 == 0 and examining.exists()):
            time.sleep(0.001)
        seen += examining.exists()

        for process in processes(service, which):
            with suppress(psutil.NoSuchProcess):
                getattr(process, end)()
        if which != "followers":
            assert service.process.wait(120) in (0, -signal.SIGKILL)
            wait_for(lambda: not of_session(service.process.pid), "that none of its processes is left", 120)
            service.start()
            if number % 4 == 3:  # at a point of the start, too
                time.sleep(draw.uniform(0, 3))
                for process in processes(service, "everything"):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                service.process.wait(120)
                wait_for(lambda: not of_session(service.process.pid), "that none of its processes is left", 120)
                service.start()
        service.serves(target)
        assert service.client.get("/model").json()["refused"] == [], (number, which, end)
        assert service.client.post("/predict", json=TRIP).json()["version"] == target
    print(f"{POINTS} ends, {seen} of them while a version was examined: no good version was refused")
    assert seen >= POINTS // 4

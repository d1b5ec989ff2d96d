"""Twelve secrets go through a month that ends well, one that is refused, and one that fails: nothing keeps one of them."""

import base64
import gzip
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from zipfile import ZipFile, is_zipfile

import pytest

from taxi.data.synthetic import write_sample
from tests.support import faults
from tests.support.automation import SMALL, make_checkout
from tests.support.postgres import Postgres, why_not
from tests.support.receivers import closed_port, webhook
from tests.support.serving_worlds import TRIP, make_world, wait_for
from tests.support.worlds import ROOT, World

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=str(why_not()))]
WHERE = (
    "source",
    "predictions",
    "metrics",
    "webhook",
    "dead-webhook",
    "api-key",
    "mlflow-password",
    "mlflow-token",
    "aws-secret",
    "aws-session",
    "git-token",
    "dot-env",
)
CANARIES = {name: f"canary+{number}/{name}-5f2c81e0aa" for number, name in enumerate(WHERE)}


def forms(secret: str) -> list[bytes]:
    """Return the ways in which a secret may be written."""
    coded = base64.b64encode(secret.encode())
    return [secret.encode(), quote(secret, safe="").encode(), quote(secret).encode(), coded]


def with_password(address: str, secret: str) -> str:
    """Return a database's address with a password in it."""
    return address.replace("postgres@", f"postgres:{quote(secret, safe='')}@")


def unpacked(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, and those of what is packed in it."""
    content = path.read_bytes()
    yield gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    if is_zipfile(path):
        with ZipFile(path) as archive:
            yield from map(archive.read, archive.namelist())


def finders(folder: Path, written: str) -> list[tuple[str, str]]:
    """Return which canary lies where below ``folder``, and in what was ``written`` to the terminal."""
    found = []
    places = [(str(path.relative_to(folder)), path) for path in folder.rglob("*") if path.is_file()]
    contents = [(name, one) for name, path in places for one in unpacked(path)]
    for name, content in [*contents, ("the terminal", written.encode())]:
        found += [(key, name) for key, secret in CANARIES.items() if any(form in content for form in forms(secret))]
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, prefect: str, postgres: Postgres) -> tuple[Path, str, list[int]]:
    """Run the months; return where all lies that they left, what they wrote, and how they ended."""
    place, outside = tmp_path_factory.mktemp("secrets"), tmp_path_factory.mktemp("outside")
    write_sample(outside / "published", "green", ["2024-01", "2024-02", "2024-03"], rows=1500)
    refused = outside / "published/trip-data/green_tripdata_2024-02.parquet"
    refused.write_bytes(refused.read_bytes()[:-300])
    published = {f"/{path.relative_to(outside / 'published')}": path.read_bytes() for path in outside.rglob("*.*")}
    root = make_checkout(place / "checkout", {"model": SMALL | {"planned": False}}, lean=True)
    (root / "taxi").symlink_to(ROOT / "taxi")
    (root / ".dvc").mkdir()
    for name in (".dvc/config", ".dvcignore", "dvc.yaml"):
        shutil.copyfile(ROOT / name, root / name)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / ".env").write_text(f"TAXI_UNKNOWN={CANARIES['dot-env']}\n", encoding="utf-8")
    secret = {name: quote(one, safe="") for name, one in CANARIES.items()}
    with faults.serve(published) as site, webhook() as hook:
        channels = [
            f"json://user:{secret['webhook']}@127.0.0.1:{hook.port}",
            f"json://127.0.0.1:{closed_port()}/{secret['dead-webhook']}",
        ]
        world = World(
            place,
            {
                "PREFECT_API_URL": prefect,
                "TAXI_DATA": str(root / "data"),
                "TAXI_REPORTS": str(root / "reports"),
                "TAXI_SOURCE": site.base.replace("//", f"//reader:{secret['source']}@"),
                "TAXI_PREDICTIONS": with_password(postgres.address, CANARIES["predictions"]),
                "TAXI_METRICS": f"{postgres.address}?password={quote(CANARIES['metrics'], safe='')}",
                "TAXI_ALARM_CHANNELS": " ".join(channels),
                "TAXI_API_KEYS": CANARIES["api-key"],
                "MLFLOW_TRACKING_PASSWORD": CANARIES["mlflow-password"],
                "MLFLOW_TRACKING_TOKEN": CANARIES["mlflow-token"],
                "AWS_SECRET_ACCESS_KEY": CANARIES["aws-secret"],
                "AWS_SESSION_TOKEN": CANARIES["aws-session"],
                "GITHUB_TOKEN": CANARIES["git-token"],
            },
            root,
        )
        done = [world.taxi("-v", "run", "--service", "green", "--month", "2024-01")]
        done.append(world.taxi("-v", "run", "--service", "green", "--month", "2024-02", "--no-version"))
        broken = root / "notebooks" / "02-features.ipynb"
        broken.write_text(broken.read_text(encoding="utf-8").replace("import ", "raise OSError; import ", 1))
        done.append(world.taxi("-v", "run", "--service", "green", "--month", "2024-03", "--no-version"))
        done.append(world.taxi("doctor"))
    (root / ".env").unlink()
    assert hook.got, "".join(one.stderr for one in done)
    return place, "".join(one.stdout + one.stderr for one in done), [one.returncode for one in done[:3]]


def test_the_months_ended_as_they_were_meant_to(ran: tuple[Path, str, list[int]]) -> None:
    assert ran[2] == [0, 4, 1], ran[1][-6000:]


def test_the_month_that_ended_well_was_versioned(ran: tuple[Path, str, list[int]]) -> None:
    assert (ran[0] / "checkout/dvc.lock").is_file(), ran[1][-6000:]
    assert len(list((ran[0] / "checkout/.dvc/cache").rglob("*"))) > 20


def test_no_secret_is_kept_or_shown(ran: tuple[Path, str, list[int]], shared: Path) -> None:
    assert finders(ran[0], ran[1]) == []
    assert finders(shared / "prefect", "") == [], "in the home of Prefect's server"


def test_a_service_keeps_and_shows_no_secret(tmp_path: Path, small_models: dict[int, Path], postgres: Postgres) -> None:
    place = tmp_path / "served"
    service = make_world(place, small_models).running(
        TAXI_PREDICTIONS=with_password(postgres.address, CANARIES["predictions"]),
        TAXI_API_KEYS=CANARIES["api-key"],
        MLFLOW_TRACKING_TOKEN=CANARIES["mlflow-token"],
        AWS_SECRET_ACCESS_KEY=CANARIES["aws-secret"],
    )
    service.start().ready()
    own, wrong = ({"X-API-Key": CANARIES[name]} for name in ("api-key", "git-token"))
    bodies = [TRIP, TRIP | {"PULocationID": CANARIES["dot-env"]}, TRIP | {"trip_id": 7}]

    said = [service.client.post("/predict", json=body, headers=key) for key in (own, wrong) for body in bodies]
    said += [service.client.get(path, headers=own) for path in ("/", "/model", "/metrics", "/openapi.json")]
    postgres.stop()
    said.append(service.client.post("/predict", json=TRIP, headers=own))
    wait_for(lambda: "prediction store" in service.log.read_text(), "word of a store that is down")
    postgres.start()

    assert service.stop() == 0
    assert [one.status_code for one in said] == [200, 422, 422, 401, 401, 401, 200, 200, 200, 200, 200]
    assert finders(place, "".join(f"{one.headers}{one.text}" for one in said)) == []


@pytest.mark.parametrize("name", WHERE)
def test_a_secret_that_is_kept_would_be_found(name: str, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(forms(CANARIES[name])[-1])
    assert finders(tmp_path, "") == [(name, "plain")]
    assert finders(tmp_path, CANARIES[name])[-1] == (name, "the terminal")

"""Prefect's server with basic authentication on: commands work with its credentials, and name the variable without them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pipelines.flow_runs import read_under_way
from taxi.data.synthetic import write_sample
from taxi.errors import TaxiError
from tests.support.prefect_server import running_prefect
from tests.support.worlds import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CREDENTIALS = "admin:canary-of-prefect"
SAYS = "refused the credentials: set PREFECT_API_AUTH_STRING"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("guarded") / "prefect"
    with running_prefect(home, PREFECT_SERVER_API_AUTH_STRING=CREDENTIALS) as address:
        yield address


@pytest.mark.parametrize("given", [None, "admin:canary-wrong"])
def test_missing_or_wrong_credentials_are_told_by_their_variable(guarded: str, given: str | None) -> None:
    settings = {PREFECT_API_URL: guarded, PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_AUTH_STRING: given}
    with temporary_settings(settings), pytest.raises(TaxiError, match=SAYS) as refusal:
        read_under_way()

    assert "canary" not in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_flow_runs_with_the_credentials_and_fails_in_one_line_without(guarded: str, tmp_path: Path) -> None:
    write_sample(tmp_path / "source", "green", ["2024-01"], rows=300)
    server = {"PREFECT_API_URL": guarded, "PREFECT_HOME": str(tmp_path / "prefect")}
    ingest = ("ingest", "--service", "green", "--month", "2024-01")

    refused = World(tmp_path, server | {"PREFECT_API_AUTH_STRING": "admin:canary-wrong"}).taxi(*ingest)
    done = World(tmp_path, server | {"PREFECT_API_AUTH_STRING": CREDENTIALS}).taxi(*ingest)

    assert refused.returncode == 1 and SAYS in refused.stderr and len(refused.stderr.splitlines()) == 1, refused.stderr
    assert done.returncode == 0, done.stderr
    assert "canary" not in refused.stderr + done.stderr + done.stdout

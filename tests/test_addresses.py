"""Addresses: what of them may be shown, in every form in which one can hold a secret, and whether they answer, in seconds."""

import logging
import socket
import sys
import time
from contextlib import closing

import pytest

from pipelines import cli
from pipelines.terminal import start_logging
from taxi.addresses import check_server, redact, shown, why_unreachable
from taxi.errors import TaxiError
from tests.support.postgres import free_port

CANARY = "c4nary-7f"
FORMS = [
    "postgresql+psycopg2://taxi:{}@db:5432/taxi",
    "postgresql://db/taxi?user=taxi&password={}",
    "postgresql://db/taxi?PASSWORD={}&sslmode=require",
    "postgresql://db/taxi?p%61ssword={}",
    "postgresql://taxi:p%40{}%2F@db/taxi",
    "postgresql://taxi:p@{}@db/taxi",
    "postgresql://taxi:p/{}@db/taxi",
    "postgresql://taxi:p?{}@db/taxi",
    "postgresql://taxi:p#{}@db/taxi",
    "postgresql://db/taxi?password=p@{}",
    "postgresql://taxi:p@a/b{}@db/taxi",
    "http://{}@mlflow:5000",
    "https://user:{}@mlflow/api?x=1",
    "https://user:p/{}@mlflow/api",
    "https://account.blob.core.windows.net/tlc?sv=1&sig={}",
    "https://host/tlc#token={}",
    "s3://key:{}@bucket/tlc",
    "taxi:{}@db:5432/taxi",
    "tcp://user:{}@scheduler:8786",
]


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_an_address_shows_its_secret(form: str) -> None:
    address = form.format(CANARY)

    assert CANARY not in shown(address)
    assert CANARY not in redact(f"could not connect to '{address}': refused ({address})")


@pytest.mark.parametrize(
    "address",
    ["sqlite:////srv/a@b/mlflow.db", "https://host:8080/@scope/tlc", "s3://bucket/a@b", "/srv/months@home", "months",
     "http://[::1]:5000/api", "postgresql://db:5432/taxi"],
)  # fmt: skip
def test_an_address_without_a_secret_is_shown_as_it_is(address: str) -> None:
    assert shown(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "invalid option: host=db password={} dbname=x",
        "GET /months?X-Amz-Security-Token={}&x=1 failed",
        "AWS_SECRET_ACCESS_KEY_TOKEN={}",
        "sslpassword%3D{}",
        "Api-Key={}",
    ],
)
def test_what_a_library_says_is_shown_without_values_named_as_secrets(text: str) -> None:
    assert CANARY not in redact(text.format(CANARY))


def test_log_lines_tracebacks_and_the_commands_last_line_show_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"postgresql://taxi:{CANARY}@db/taxi"
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers.clear()
    try:
        start_logging(verbose=True)
        try:
            raise OSError(f"no route to {address}")
        except OSError:
            logging.getLogger("elsewhere").exception("cannot reach %s", address)
    finally:
        root.handlers[:] = before
    monkeypatch.setattr(cli, "app", _failing(TaxiError(f"no answer from {address}")))
    with pytest.raises(SystemExit):
        cli.main()

    written = capsys.readouterr().err
    assert (
        "cannot reach" in written and "Traceback" in written and "taxi: no answer from postgresql://db/taxi" in written
    )
    assert CANARY not in written


def _failing(error: Exception) -> object:
    def app() -> None:
        raise error

    return app


def test_a_server_that_is_away_is_told_in_seconds_with_what_to_do() -> None:
    begun, port = time.monotonic(), free_port()

    with pytest.raises(
        TaxiError, match=rf"the model registry is not there: http://127.0.0.1:{port}/health did not .*set X"
    ):
        check_server("model registry", f"http://user:{CANARY}@127.0.0.1:{port}", "X")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "did not answer" in str(why_unreachable(address))

    check_server("model registry", "sqlite:////srv/none.db", "X")
    assert time.monotonic() - begun < 10


def test_a_failure_that_the_command_explains_is_not_told_by_prefect_too(capsys: pytest.CaptureFixture[str]) -> None:
    root, said = logging.getLogger(), logging.getLogger("prefect.task_runs.told")
    before = root.handlers[:]
    root.handlers.clear()
    try:
        start_logging(verbose=False)
        for error in (TaxiError("the source did not answer"), ZeroDivisionError("a bug")):
            try:
                raise error
            except type(error):
                root.handlers[0].handle(
                    said.makeRecord(said.name, 40, "", 0, "Encountered %r", (error,), sys.exc_info())
                )
        root.handlers[0].handle(said.makeRecord(said.name, 40, "", 0, "Finished in state Failed('…')", (), None))
    finally:
        root.handlers[:] = before

    written = capsys.readouterr().err
    assert "the source" not in written and "Finished" not in written and "ZeroDivisionError" in written

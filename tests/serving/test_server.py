"""The socket that workers share: bound by the service, or held by a service manager over a restart."""

import os
import socket
import time
from pathlib import Path

import pytest

from taxi.errors import UsageError
from taxi.serving.local_store import sole_server
from taxi.serving.server import listen
from tests.support.load import hammer_while
from tests.support.serving_worlds import TRIP, make_world


def test_an_address_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:  # nobody accepts yet: a second service of the same second is refused as well
        with pytest.raises(UsageError, match=str(taken.getsockname()[1])):
            listen("127.0.0.1", taken.getsockname()[1])


def test_a_second_server_of_the_same_service_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with sole_server(tmp_path / "green"), sole_server(tmp_path / "yellow"):
        with pytest.raises(UsageError, match="another TAXI_DATA"), sole_server(tmp_path / "green"):
            pass

    with sole_server(tmp_path / "green"):
        pass


def test_the_socket_that_a_service_manager_passes_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held, listen("127.0.0.1", 0, os.dup(held.fileno())) as passed:
        assert passed.getsockname() == held.getsockname()

    with open(os.devnull) as nothing, pytest.raises(UsageError, match=f"descriptor {nothing.fileno()}"):
        listen("127.0.0.1", 0, nothing.fileno())


@pytest.mark.slow
def test_a_restart_behind_a_held_socket_refuses_and_drops_no_request(
    tmp_path: Path, small_models: dict[int, Path]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        running = make_world(tmp_path, {1: small_models[1]}).running()
        running.held = held
        running.start().ready()

        def restart() -> None:
            time.sleep(0.5)
            assert running.stop() == 0, running.log.read_text()
            running.start().ready()
            time.sleep(0.5)

        tally = hammer_while(restart, running.url, [TRIP], 4, 0.01)
        assert running.stop() == 0, running.log.read_text()

    assert tally.failed == [] and tally.refused == 0
    assert max(answer.seconds for answer in tally.answers) > 0.5, "some waited for the new start"

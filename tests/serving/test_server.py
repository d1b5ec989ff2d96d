"""A listening socket can be given up without a connection that nobody serves."""

import socket
import sys

import pytest

from taxi.errors import UsageError
from taxi.serving.server import listen, make_no_more, waiting

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say how many wait")


@linux
def test_who_waits_is_counted_and_after_the_end_nobody_new_does() -> None:
    listening = listen("127.0.0.1", 0)
    listening.listen(16)
    early = [socket.create_connection(listening.getsockname()) for _ in range(3)]
    assert waiting(listening) == 3

    make_no_more(listening)

    with pytest.raises(TimeoutError):
        socket.create_connection(listening.getsockname(), timeout=0.3)
    served = [listening.accept()[0] for _ in early]
    for one, other in zip(early, served, strict=True):
        one.sendall(b"ask")
        assert other.recv(3) == b"ask"
        other.sendall(b"say")
        assert one.recv(3) == b"say"
    assert waiting(listening) == 0
    for one in (*early, *served, listening):
        one.close()


@linux
def test_a_connection_half_made_before_the_end_is_served() -> None:
    with listen("127.0.0.1", 0) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)  # half made until the client speaks
        listening.listen(16)
        listening.settimeout(5)
        with socket.create_connection(listening.getsockname(), timeout=5) as client:
            assert waiting(listening) == 0
            make_no_more(listening)
            client.sendall(b"ask")
            served = listening.accept()[0]
            with served:
                assert served.recv(3) == b"ask"


def test_an_address_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(UsageError, match=str(taken.getsockname()[1])):
            listen("127.0.0.1", taken.getsockname()[1])

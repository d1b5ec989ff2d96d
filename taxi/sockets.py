"""The socket that workers share: had once, and asked how many connections nobody has accepted yet."""

import socket
import struct
from contextlib import suppress

from taxi.errors import UsageError

BACKLOG = 2048
TCP_INFO_UNACKED = 24  # where struct tcp_info of linux/tcp.h says it of a listening socket


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to ``host`` and ``port`` (0: any free one); raise UsageError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, OverflowError) as error:
        raise UsageError(f"expected a free address to listen on; {host}:{port} is not: {error}") from error
    return made


def waiting(listening: socket.socket) -> int:
    """Return how many connections nobody has accepted yet; 0 where the system (other than Linux) does not say."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_UNACKED + 4)
    return int(struct.unpack_from("I", info, TCP_INFO_UNACKED)[0])


def stop_listening(listening: socket.socket) -> None:
    """Refuse connections from now on, in every process that shares the socket.

    Closing it does so only when an event loop gets to it; connections that are made until then would be reset.
    """
    with suppress(OSError):  # another worker has done so
        listening.shutdown(socket.SHUT_RD)

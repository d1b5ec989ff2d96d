"""The socket that workers share: had once, and given up so that no connection is made that nobody will serve."""

import ctypes
import socket
import struct
from contextlib import suppress

from taxi.errors import UsageError

BACKLOG = 2048
TCP_INFO_UNACKED = 24  # where struct tcp_info of linux/tcp.h says how many connections nobody has accepted yet
SO_ATTACH_FILTER = 26  # of linux/socket.h
SYN, SYN_OR_ACK, FLAGS = 0x02, 0x12, 13  # of a TCP header: what begins a connection, and the byte that says so
DROP_SYN = (  # struct sock_filter of linux/filter.h: what begins a connection is kept with 0 of its bytes, the rest whole
    (0x30, 0, 0, FLAGS),  # load a byte
    (0x54, 0, 0, SYN_OR_ACK),  # and
    (0x15, 0, 1, SYN),  # if equal the next, else the one after it
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


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


def make_no_more(listening: socket.socket) -> None:
    """Let no connection be made from now on, in every process that shares the socket; those that wait can be accepted.

    On Linux a filter drops what would begin one, and its client tries again until the socket is closed and it is refused;
    one that is half made goes on, its client may hold it for whole already. Elsewhere, connections made in the last moment
    are reset.
    """
    if hasattr(socket, "TCP_INFO"):
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
        attached = struct.pack("HP", len(DROP_SYN), ctypes.addressof(program))
        with suppress(OSError):  # a kernel without filters: as elsewhere
            listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)

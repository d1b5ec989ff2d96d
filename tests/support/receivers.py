"""Receivers of alarms, real ones on local sockets: a webhook, a mail server, and one that takes a call and says nothing."""

import json
import socket
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Receiver:
    """Where it listens, and what it got."""

    port: int
    got: list[Any] = field(default_factory=list)


@contextmanager
def _served(server: socketserver.BaseServer, got: list[Any]) -> Iterator[Receiver]:
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Receiver(server.server_address[1], got)
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def webhook(status: int = 200) -> Iterator[Receiver]:
    """Run a receiver of JSON; ``got`` holds the bodies. It answers with ``status``."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with _served(ThreadingHTTPServer(("127.0.0.1", 0), Handler), got) as receiver:
        yield receiver


class _Mail(socketserver.StreamRequestHandler):
    ANSWERS = {"EHLO": b"250-sink\r\n250 AUTH PLAIN", "AUTH": b"235 welcome", "DATA": b"354 go on", "QUIT": b"221 bye"}

    def handle(self) -> None:
        self._say(b"220 sink")
        while line := self.rfile.readline():
            verb = line.split()[0].decode().upper()
            self._say(self.ANSWERS.get(verb, b"250 ok"))
            if verb == "DATA":
                self._take()
            if verb == "QUIT":
                return

    def _say(self, words: bytes) -> None:
        self.wfile.write(words + b"\r\n")

    def _take(self) -> None:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line)
        self.server.got.append(message_from_bytes(b"".join(lines)))  # type: ignore[attr-defined]
        self._say(b"250 taken")


class _MailServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def mail_sink() -> Iterator[Receiver]:
    """Run a mail server that takes all; ``got`` holds the parsed messages."""
    server = _MailServer(("127.0.0.1", 0), _Mail)
    server.got = []  # type: ignore[attr-defined]
    with _served(server, server.got) as receiver:  # type: ignore[attr-defined]
        yield receiver


@contextmanager
def silent() -> Iterator[Receiver]:
    """Listen on a port where calls are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Receiver(server.getsockname()[1])


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])

"""A worker's server in a thread of the test's own process, with a model on its disk and no registry; and plain connections to it."""

import asyncio
import ctypes
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taxi.config import Settings
from taxi.files import sha256_tree
from taxi.predictions.spool import Spool
from taxi.serving import app, server
from taxi.serving.app import Service, make_app, make_service
from taxi.serving.local_store import Entry, Place, State, now_text
from taxi.serving.middleware import Gate
from tests.support.serving_worlds import ROOT


def put_model(place: Place, folder: Path, version: int = 1) -> Entry:
    """Put a model's folder where the follower would, and have it serve as champion."""
    name, sha256 = f"{version}-x", sha256_tree(folder)
    shutil.copytree(folder, place.versions / name)
    entry = Entry(version, name, sha256, "2024-01", "2024-01", now_text())
    place.write_state(State(champion=entry, registry="answers"))
    return entry


@dataclass
class Here:
    """A server that runs here."""

    port: int
    service: Service

    def talk(self, *parts: bytes, cut: bool = False, pause: float = 0.0, timeout: float = 20) -> bytes:
        """Send bytes as they are, and no more where ``cut``; return all that comes back until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
                if cut:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has answered and closed already
            return receive_all(connection)


def receive_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes, or resets what it has not read."""
    got = bytearray()
    try:
        while part := connection.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    return bytes(got)


def post(body: Any, path: str = "/predict", host: str = "localhost", *more: bytes) -> bytes:
    """Return a request in bytes, its body as JSON where it is none yet; ``more`` are lines of its head."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1".encode(), b"Host: " + host.encode(), b"Content-Type: application/json"]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(content), *more, b"", content])


def get(path: str, *more: bytes, method: str = "GET") -> bytes:
    """Return a request in bytes after which the connection is closed."""
    return b"\r\n".join(
        [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close", *more, b"", b""]
    )


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of a failure."""
        return str(json.loads(self.body)["error"]["code"])


def read_replies(got: bytes, bodiless: bool = False) -> list[Reply]:
    """Return the answers in what came back; one to a HEAD has no body."""
    replies = []
    while got:
        head, _, got = got.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if first.split()[1] == "100":  # go on: the answer follows
            continue
        length = 0 if bodiless else int(headers["content-length"])
        replies.append(Reply(int(first.split()[1]), headers, got[:length]))
        got = got[length:]
    return replies


@contextmanager
def running_here(place: Path, model: Path | None = None, **limits: Any) -> Iterator[Here]:
    """Serve green from ``place`` with ``model`` as champion until the block ends; ``limits`` are of params.yaml's ``serve``."""
    settings = Settings(ROOT, "unused", place / "data", place / "reports", "unused")
    local = Place(settings.server("green"))
    if model:
        put_model(local, model)
    interval = sys.getswitchinterval()
    with pytest.MonkeyPatch.context() as patch, socket.socket() as listening:
        patch.setattr(app, "freeze_garbage", lambda: None)
        spool = Spool(settings.spool)
        service = make_service(settings, "green", spool.make_folder())
        given = {"drain_seconds": 0.0, "rate_per_second": 1e6, "burst": 10**6} | limits
        service.rules.params = service.rules.params.model_copy(update=given)
        service.rules.renew(service.rules.params, service.rules.keys)
        patch.setattr(service.watch, "_renew_rules", lambda: None)
        listening.bind(("127.0.0.1", 0))
        gate = Gate(make_app(service), service.rules)
        running = server.DrainingServer(server._config(gate, []), gate, ctypes.c_ulong())
        thread = threading.Thread(target=asyncio.run, args=(running.serve([listening]),))
        thread.start()
        while not running.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield Here(listening.getsockname()[1], service)
        finally:
            running.should_exit = True
            thread.join()
            spool.close()
            sys.setswitchinterval(interval)

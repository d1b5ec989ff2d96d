"""A local HTTP server that answers well, or as badly as a test asks it to."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler", bytes], None]


@dataclass
class Site:
    """What the server has, which faults come first (one a GET), and what it was asked."""

    files: dict[str, bytes]
    faults: list[Fault] = field(default_factory=list)
    head_faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # method, Range
    base: str = ""

    def gets(self) -> list[str | None]:
        """Return the Range of every GET, in order."""
        return [wanted for method, wanted in self.asked if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    """Serves ``Site.files`` with ETag, Range and If-Range."""

    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def head(self, code: int, length: int, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_HEAD(self) -> None:
        self.site.asked.append(("HEAD", None))
        content = self.site.files.get(self.path)
        if self.site.head_faults:
            self.site.head_faults.pop(0)(self, content or b"")
        elif content is None:
            self.head(403, 0)
        else:
            self.head(200, len(content), ETag=etag(content))

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.site.asked.append(("GET", wanted))
        content = self.site.files.get(self.path)
        if content is None:
            self.head(404, 0)
        elif self.site.faults:
            self.site.faults.pop(0)(self, content)
        elif wanted and self.headers.get("If-Range") == etag(content):
            begun = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.head(206, len(content) - begun, ETag=etag(content), Content_Range=span(begun, content))
            self.wfile.write(content[begun:])
        else:
            self.head(200, len(content), ETag=etag(content))
            self.wfile.write(content)


def etag(content: bytes) -> str:
    return f'"{md5(content).hexdigest()}"'


def span(begun: int, content: bytes) -> str:
    return f"bytes {begun}-{len(content) - 1}/{len(content)}"


def answers(code: int, **headers: str) -> Fault:
    """Answer with a status and no body."""
    return lambda handler, content: handler.head(code, 0, **headers)


def resets(after: int) -> Fault:
    """Send ``after`` bytes of the body, then reset the connection."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.head(200, len(content), ETag=etag(content))
        handler.wfile.write(content[:after])
        handler.wfile.flush()
        time.sleep(0.1)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True

    return fault


def stops(after: int) -> Fault:
    """Send ``after`` bytes of the body and close as if that were all."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.head(200, len(content), ETag=etag(content))
        handler.wfile.write(content[:after])
        handler.close_connection = True

    return fault


def ignores_range(handler: Handler, content: bytes) -> None:
    """Send everything, whatever part was asked for."""
    handler.head(200, len(content), ETag=etag(content))
    handler.wfile.write(content)


def resumes_another(other: bytes) -> Fault:
    """Answer a Range with a part of another edition."""

    def fault(handler: Handler, content: bytes) -> None:
        begun = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        handler.head(206, len(other) - begun, ETag=etag(other), Content_Range=span(begun, other))
        handler.wfile.write(other[begun:])

    return fault


def drips(pause: float) -> Fault:
    """Send a byte at a time."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.head(200, len(content), ETag=etag(content))
        for at in range(len(content)):
            try:
                handler.wfile.write(content[at : at + 1])
                handler.wfile.flush()
            except OSError:
                break
            time.sleep(pause)
        handler.close_connection = True

    return fault


def says(length: int) -> Fault:
    """Claim another length than the body has, and send the body."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.head(200, length, ETag=etag(content))
        handler.wfile.write(content[:length])
        handler.close_connection = True

    return fault


@contextmanager
def serve(files: dict[str, bytes], *faults: Fault) -> Iterator[Site]:
    """Serve ``files`` (path to bytes) on this machine; ``faults`` come first."""
    site = Site(files, list(faults))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("SiteHandler", (Handler,), {"site": site}))
    site.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()

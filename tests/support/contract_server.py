"""A small service that speaks the contract of ``taxi serve``, for tests of what calls it; it can be told to fail."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

Json = dict[str, Any]


@dataclass
class Service:
    """Answers with ``predict(trips)``, one row of minutes each; ``asked`` and ``told`` are what came; ``faults`` are statuses to answer first."""

    predict: Callable[[list[Json]], Iterable[Sequence[float]]]
    ready: int = 200
    faults: dict[str, list[int]] = field(default_factory=dict)
    asked: list[Json] = field(default_factory=list)
    told: list[Json] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    address: str = ""
    lock: Lock = field(default_factory=Lock)

    def answer(self, path: str, body: Json) -> tuple[int, Json]:
        with self.lock:
            if self.faults.get(path):
                return self.faults[path].pop(0), {"error": "told to fail"}
            if path == "/outcomes":
                self.told += body["outcomes"]
                self.events += [("ends", one["trip_id"]) for one in body["outcomes"]]
                return 200, {"accepted": len(body["outcomes"])}
            trips = body.get("trips", [body])
            self.asked += trips
            self.events += [("begins", one["trip_id"]) for one in trips]
            answers = [self._predicted(*both) for both in zip(trips, self.predict(trips), strict=True)]
            return 200, {"predictions": answers} if "trips" in body else answers[0]

    def _predicted(self, trip: Json, row: Sequence[float]) -> Json:
        minutes = zip(("mean", "median", "p10", "p90"), row, strict=True)
        about = {"prediction_id": f"p-{trip['trip_id']}", "trip_id": trip["trip_id"], "service": "green"}
        return {**{f"{name}_minutes": value for name, value in minutes}, **about, "arm": "champion", "version": 3}


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    """Serve on a free port until the block ends; ``service.address`` says where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._send(service.ready, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service.keys.add(self.headers.get("X-API-Key", ""))
            self._send(*service.answer(self.path, body))

        def _send(self, status: int, content: Json) -> None:
            sent = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

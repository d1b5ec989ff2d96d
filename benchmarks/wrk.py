"""``wrk`` as a function: a load of one request over and over, and what came of it."""

import json
import re
import subprocess
import tempfile
from typing import Any

CONNECTIONS = 16
Json = dict[str, Any]


def wrk(url: str, body: Json, seconds: float, connections: int = CONNECTIONS, delay_ms: float = 0) -> Json:
    """Return requests a second, p50 and p99 (ms) and failures; each connection waits ``delay_ms`` before a request."""
    script = [
        'wrk.method = "POST"',
        f"wrk.body = [==[{json.dumps(body)}]==]",  # a body may hold ]]
        'wrk.headers["Content-Type"] = "application/json"',
        f"function delay() return {delay_ms:.3f} end" if delay_ms else "",
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write("\n".join(script))
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", file.name, url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return read_wrk(said)


def read_wrk(said: str) -> Json:
    """Return the numbers in what wrk prints."""
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    latency = {
        f"p{level}": float(value) * unit[kind] for level, value, kind in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", said)
    }
    found = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    socket = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failed = int(found[1] if found else 0) + (sum(map(int, socket.groups())) if socket else 0)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate, said
    return {"per_second": float(rate[1]), "p50_ms": latency["p50"], "p99_ms": latency["p99"], "failed": failed}

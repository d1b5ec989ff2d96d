"""Whether an address answers, asked once and with a short limit: for those who look for what is wrong, not for the work itself."""

import socket
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

SECONDS = 3.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "tcp": 8786}
SQLITE = "sqlite:///"


def shown(address: str) -> str:
    """Return the address without the user and password that it may hold."""
    parts = urlsplit(address)
    return address if "@" not in parts.netloc else parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _open_port(address: str) -> str:
    parts = urlsplit(address)
    port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
    if not parts.hostname or not port:
        return f"expected an address with a host and a port; got {shown(address)}"
    with closing(socket.create_connection((parts.hostname, port), SECONDS)):
        return ""


def _open_file(address: str) -> str:
    path = Path(address.removeprefix(SQLITE))
    if not path.is_file():
        return ""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=SECONDS)) as connection:
        said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    return "" if said == "ok" else f"{path} is damaged: {said}"


def _ask(address: str) -> str:
    request = urllib.request.Request(address, method="GET", headers={"User-Agent": "taxi-doctor"})
    with closing(urllib.request.urlopen(request, timeout=SECONDS)):
        return ""


def why_unreachable(address: str, health: str = "") -> str | None:
    """Return why the address (SQLite file, database, http with ``health`` as path, tcp) does not answer; None if it does."""
    try:
        if address.startswith(SQLITE):
            said = _open_file(address)
        elif urlsplit(address).scheme in ("http", "https"):
            said = _ask(address.rstrip("/") + health)
        else:
            said = _open_port(address)
    except HTTPError as error:
        error.close()
        return f"{shown(address)}{health} answered {error.code}"
    except URLError as error:
        return f"{shown(address)} did not answer: {error.reason}"
    except (OSError, sqlite3.Error, ValueError) as error:
        return f"{shown(address)} did not answer: {error}"
    return said or None

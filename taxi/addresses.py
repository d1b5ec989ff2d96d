"""Addresses (URLs) of databases, servers and sources: shown without their secrets, and asked in seconds whether they answer."""

import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from taxi.errors import TaxiError

SQLITE = "sqlite:///"
SECONDS = 3.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "tcp": 8786}
_SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!:memory:|file:)([^?]+)(.*)")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")
_HOST = re.compile(r"(\[[^\]]*\]|[^:@]*)(:\d*)?")
_BY_RFC = ("http", "https", "s3", "file", "tcp")  # a database's password may hold "/", "?" and "#" as they are
_IN_TEXT = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]*[^\s'\"<>;,.:)]")  # a sentence's signs after it are not its own
_BARE = re.compile(r"\b[\w.-]+:[^\s@/'\"]+@(?=[\w.-]+[:/])")  # user:password@host/, without a scheme
_NAMED = re.compile(
    r"(?i)\b([\w-]*(?:password|passwd|passphrase|secret|token|signature|api[_-]?key))(=|%3D)(?!\s)[^\s&'\",;]+"
)


def split_sqlite(address: str) -> tuple[str, Path, str] | None:
    """Return what stands before the file that a database's address names, the file, and its query; None where it names a server."""
    named = _SQLITE_FILE.fullmatch(address)
    return (named[1], Path(named[2]), named[3]) if named else None


def sqlite_file(address: str) -> Path | None:
    """Return the file that a database's address names, whatever query follows it; None where it names a server."""
    named = split_sqlite(address)
    return named[1] if named else None


def shown(address: str) -> str:
    """Return the address as it may be printed and kept: without user, password, query and fragment, which may hold secrets.

    Where it cannot be told what is a password, no more than the scheme is shown.
    """
    if named := split_sqlite(address):
        return f"{named[0]}{named[1]}"
    scheme = _SCHEME.match(address)
    begun, rest = (scheme[0], address[scheme.end() :]) if scheme else ("", address)
    if not begun:
        return "…" if ":" in rest.partition("@")[0] and "@" in rest else rest
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host, after = authority.rpartition("@")[2], rest[len(authority) :]
    unclear = not _HOST.fullmatch(host) or ("@" in after and begun.partition("://")[0] not in _BY_RFC)
    return f"{begun}…" if unclear else begun + host + re.split(r"[?#]", after, maxsplit=1)[0]


def redact(text: str) -> str:
    """Return a message of a library's without the secrets that the addresses in it hold, nor values named as passwords or tokens."""
    return _NAMED.sub(r"\1\2…", _BARE.sub("…@", _IN_TEXT.sub(lambda found: shown(found[0]), text)))


# --- Whether an address answers, asked once and with a short limit: before work that would wait for it for minutes.


def _port_fault(parts: SplitResult) -> str:
    """Return why nobody listens; a port that is no number is a fault too."""
    port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
    if not parts.hostname or not port:
        return "it has no host and no port that are known"
    with closing(socket.create_connection((parts.hostname, port), SECONDS)):
        return ""


def _file_fault(path: Path) -> str:
    if not path.is_file():
        return ""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=SECONDS)) as connection:
        said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    return "" if said == "ok" else f"{path} is damaged: {said}"


def _http_fault(address: str, any_answer: bool) -> str:
    """Return why a server is no use; its health is asked without user and password, and a refusal shows that it is there."""
    import ssl  # `taxi --help` need not wait for what speaks HTTP
    import urllib.request
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    request = urllib.request.Request(address, headers={"User-Agent": "taxi"})
    try:
        with closing(urllib.request.urlopen(request, timeout=SECONDS)):
            return ""
    except HTTPError as error:
        error.close()
        return "" if any_answer or error.code in (401, 403) else f"answered {error.code}"
    except URLError as error:
        return "" if any_answer and isinstance(error.reason, ssl.SSLError) else f"did not answer: {error.reason}"
    except HTTPException as error:
        return f"did not answer over HTTP: {type(error).__name__}"


def why_unreachable(address: str, health: str = "", any_answer: bool = False) -> str | None:
    """Return why the address (SQLite file, database, http with ``health`` as path, tcp) does not answer; None if it does.

    With ``any_answer`` a refusal over HTTP is an answer as well.
    """
    try:
        if file := sqlite_file(address):
            return _file_fault(file) or None
        parts = urlsplit(address)
        if parts.scheme in ("http", "https"):
            asked = shown(address).rstrip("/") + health
            fault = _http_fault(asked, any_answer)
            return f"{asked} {fault}" if fault else None
        fault = _port_fault(parts)
    except (OSError, sqlite3.Error, ValueError) as error:
        fault = f"did not answer: {error}"
    return redact(f"{shown(address)} {fault}") if fault else None


def check_server(what: str, address: str, variable: str) -> None:
    """Raise TaxiError within seconds if ``what`` (for example "model registry") is a server and does not answer."""
    if sqlite_file(address) is None and (reason := why_unreachable(address, "/health", any_answer=True)):
        raise TaxiError(f"the {what} is not there: {reason}; start it, or set {variable}")

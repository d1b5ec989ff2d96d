"""Downloads over HTTPS that survive a bad line: resumed by Range, retried with back-off, checked for length."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    wait_exponential_jitter,
)

from taxi.addresses import redact, shown
from taxi.errors import NoAnswer, NotPublished, TaxiError
from taxi.files import making_room_known, read_kept, remove, write_json

_LOG = logging.getLogger(__name__)
MOST_BYTES = 4 * 1024**3  # the publisher's largest file has half a gigabyte
REDIRECTS = 5
OTHER = "; look at the network, or name another source by --source or TAXI_SOURCE"
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Patience:
    """How long to wait: seconds for a connection and for the next bytes, attempts, and the back-off's first and longest wait.

    Less than ``slowest`` (bytes a second) over ``read`` seconds counts as a broken line. A source that has not answered yet is
    given up after ``tries``, or ``connect`` seconds: a line that broke may come back, one that never was does not.
    """

    connect: float = 5.0
    tries: int = 3
    read: float = 60.0
    slowest: float = 1000.0
    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0


class Interrupted(TaxiError):
    """The line or the server failed in a way that may pass; ``after`` is what the server asked to wait, in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class NoConnection(Interrupted):
    """No connection came about; ``no_host`` is whether the name is none that the network knows."""

    def __init__(self, message: str, no_host: bool) -> None:
        super().__init__(message)
        self.no_host = no_host


class Unreachable(NoAnswer):
    """The source did not answer, however often it was asked."""


class Offline(Unreachable):
    """No connection with the source came about at all."""


def _failure(named: str, error: httpx.TransportError, answered: bool) -> Interrupted:
    """Return what a failure on the line is; once the source has ``answered``, one without a connection may pass too."""
    said = f"{named}: {redact(str(error)) or type(error).__name__}"
    if answered or not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Interrupted(said)
    cause: BaseException | None = error
    while cause and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    return NoConnection(said, no_host=cause is not None)


def _retrying(patience: Patience) -> Retrying:
    back_off = wait_exponential_jitter(patience.first_wait, patience.longest_wait, jitter=patience.first_wait)

    def wait(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.after if isinstance(failure, Interrupted) else 0.0
        return min(max(back_off(state), asked), patience.longest_wait)

    def give_up(state: RetryCallState) -> bool:
        failure = state.outcome.exception() if state.outcome else None
        if not isinstance(failure, NoConnection):
            return state.attempt_number >= patience.attempts
        waited = state.attempt_number >= patience.tries or (state.seconds_since_start or 0) >= patience.connect
        return failure.no_host or waited

    def say(state: RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        if not isinstance(failure, NoConnection):
            _LOG.warning("attempt %d of %d failed: %s", state.attempt_number, patience.attempts, failure)

    return Retrying(
        retry=retry_if_exception_type(Interrupted),
        stop=give_up,
        wait=wait,
        before_sleep=say,
        reraise=True,
    )


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdigit() else 0.0


def _check_status(response: httpx.Response, named: str) -> None:
    code = response.status_code
    if code in (403, 404):
        raise NotPublished(f"{named} is not published (the server answered {code})")
    if code == 429 or code >= 500:
        raise Interrupted(f"{named} answered {code}", _seconds(response.headers.get("Retry-After")))
    if code not in (200, 206):
        raise TaxiError(f"expected 200 or 206 from {named}; it answered {code}")


def check_size(size: int | None, named: str) -> None:
    """Raise TaxiError for a file larger than any that the publisher has."""
    if size and size > MOST_BYTES:
        raise TaxiError(f"expected at most {MOST_BYTES:,} bytes of {named}; it has {size:,}")


# --- Redirects: a public source may move its files, and may not make us read what only this machine and its network can.


def _addresses(host: str) -> list[IPv4Address | IPv6Address]:
    """Return a host's addresses; none of one that only a proxy can resolve, or that is not there."""
    try:
        named = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return []
    return [getattr(one, "ipv4_mapped", None) or one for one in map(ip_address, named)]


def redirect_fault(source: httpx.URL, target: httpx.URL) -> str | None:
    """Return why a redirect is not followed; None if it may be: to the same host, or by https to one that is as public."""
    if target.scheme not in ("http", "https") or (target.scheme == "http" and source.scheme == "https"):
        return "which is not https"
    if target.host == source.host:
        return None
    if target.scheme == "http":
        return "another host, without https"
    addresses, inside = _addresses(target.host), any(not one.is_global for one in _addresses(source.host))
    if any(one.is_link_local or not (one.is_global or inside) for one in addresses):
        return "a host of the local network"
    return None


@contextmanager
def _asking(url: str, patience: Patience, answers: list[int]) -> Iterator[httpx.Client]:
    """Yield a client for ``url`` that adds to the ``answers`` so far; what may pass raises Interrupted, a bad redirect TaxiError."""
    named = shown(url)

    def check_answer(response: httpx.Response) -> None:
        answers.append(response.status_code)
        if response.has_redirect_location:
            target = response.url.join(response.headers["Location"])
            if fault := redirect_fault(httpx.URL(url), target):
                away = shown(str(target))
                raise TaxiError(f"{named} leads to {away}, {fault}: not followed; give --source if it is meant")

    timeout = httpx.Timeout(patience.read, connect=patience.connect)
    hooks = {"response": [check_answer]}
    try:
        with httpx.Client(timeout=timeout, follow_redirects=True, max_redirects=REDIRECTS, event_hooks=hooks) as client:
            yield client
    except httpx.TransportError as error:
        raise _failure(named, error, bool(answers)) from error
    except (httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise TaxiError(f"{named} leads to nowhere: {redact(str(error))}") from error


def ask_over_http(url: str, patience: Patience) -> dict[str, Any]:
    """Return etag, size (bytes) and last_modified of ``url`` without its body; NotPublished, Unreachable as they come."""
    named = shown(url)

    def ask() -> dict[str, Any]:
        with _asking(url, patience, []) as client:
            response = client.head(url)
        _check_status(response, named)
        length = response.headers.get("Content-Length")
        return {
            "etag": response.headers.get("ETag"),
            "size": int(length) if length else None,
            "last_modified": response.headers.get("Last-Modified"),
        }

    try:
        return _retrying(patience)(ask)
    except Interrupted as error:
        kind = Offline if isinstance(error, NoConnection) else Unreachable
        raise kind(f"the source did not answer: {error}{OTHER}") from error


def _resumable(part: Path, note: Path, named: str) -> tuple[int, str | None]:
    kept = read_kept(note)
    if part.is_file() and kept.get("url") == named and kept.get("etag"):
        return part.stat().st_size, kept["etag"]
    remove(part)
    return 0, None


def _total(response: httpx.Response) -> int | None:
    if response.status_code == 206:
        whole = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(whole) if whole.isdigit() else None
    length = response.headers.get("Content-Length")
    return int(length) if length else None


def _receive(response: httpx.Response, part: Path, begun: int, patience: Patience, progress: Progress) -> None:
    total = _total(response)
    with open(part, "ab" if begun else "wb") as stream:
        since, there = time.monotonic(), begun
        for chunk in response.iter_raw():
            stream.write(chunk)
            check_size(stream.tell(), part.name)
            progress(stream.tell(), total)
            if (waited := time.monotonic() - since) >= patience.read:
                if (came := stream.tell() - there) < patience.slowest * waited:
                    raise Interrupted(f"only {came:,} bytes came in {waited:.1f} s")
                since, there = time.monotonic(), stream.tell()
        stream.flush()
        os.fsync(stream.fileno())
    got = part.stat().st_size
    if total is not None and got > total:
        remove(part)
        raise Interrupted(f"expected {total:,} bytes; {got:,} came")
    if total is not None and got < total:
        raise Interrupted(f"expected {total:,} bytes; the line broke after {got:,}")


def download(url: str, part: Path, patience: Patience, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Bring ``url`` into ``part``, going on where an earlier try stopped if the publisher's edition is the same.

    Returns etag, size and last_modified. Raises NotPublished for 403 and 404 at once, Unreachable when patience ends (what came
    stays in ``part`` for the next start), TaxiError if the disk is full.
    """
    note, named, answers = part.with_name(f"{part.name}.json"), shown(url), list[int]()

    def attempt() -> dict[str, Any]:
        begun, etag = _resumable(part, note, named)
        asked = {"Range": f"bytes={begun}-", "If-Range": etag} if begun and etag else {}
        with (
            _asking(url, patience, answers) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity", **asked}) as response,
        ):
            if response.status_code == 416:
                remove(part)
                raise Interrupted(f"{named} has fewer bytes than came before")
            _check_status(response, named)
            resumed = response.status_code == 206
            if resumed and response.headers.get("ETag") not in (None, etag):
                remove(part)
                raise Interrupted(f"{named} was replaced while it was fetched")
            tag = response.headers.get("ETag")
            write_json(note, {"url": named, "etag": tag or etag})
            _receive(response, part, begun if resumed else 0, patience, progress)
            return {
                "etag": tag or etag,
                "size": part.stat().st_size,
                "last_modified": response.headers.get("Last-Modified"),
            }

    try:
        with making_room_known(part):
            found = _retrying(patience)(attempt)
    except NoConnection as error:
        raise Offline(f"the source did not answer: {error}{OTHER}") from error
    except Interrupted as error:
        raise Unreachable(f"the source did not answer well: {error}. What came is kept; run again to go on") from error
    except TaxiError:
        for left in (part, note):
            remove(left)
        raise
    remove(note)
    return found

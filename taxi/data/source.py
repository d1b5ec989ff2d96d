"""Sources of months: the publisher's site, a folder, or S3, all in the publisher's layout."""

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse, urlsplit

import fsspec
from botocore.exceptions import BotoCoreError

from taxi.addresses import redact
from taxi.addresses import shown as shown_address
from taxi.data.download import OTHER, Offline, Patience, Unreachable, ask_over_http, check_size, download
from taxi.errors import NotPublished, TaxiError, UsageError
from taxi.files import NoRoom, making_room_known, remove

Shown = Callable[[int, int | None], None]
S3_OPTIONS = {
    "skip_instance_cache": True,
    "config_kwargs": {"connect_timeout": 3, "retries": {"total_max_attempts": 2}},  # botocore: 60 s, five times
}
OF_S3 = "; look at AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID), or name another source by --source or TAXI_SOURCE"

BAD_KEYS = (
    "AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
)  # fmt: skip


class Source(Protocol):
    """Something in the publisher's layout: it says what a file is without reading it, and brings it."""

    def address(self, name: str) -> str:
        """Return the full address of a file named relative to the source."""

    def ask(self, name: str) -> dict[str, Any]:
        """Return etag, size and last_modified; raise NotPublished or Unreachable."""

    def bring(self, name: str, part: Path, shown: Shown) -> dict[str, Any]:
        """Copy the file to ``part`` and return what ``ask`` returns."""


@dataclass(frozen=True)
class SiteSource:
    """A site over HTTP."""

    base: str
    patience: Patience = Patience()

    def address(self, name: str) -> str:
        """Return the file's URL, without the user and password that the base may hold: it is written down."""
        return shown_address(self._url(name))

    def _url(self, name: str) -> str:
        parts = urlsplit(self.base)  # a query, which may be a signature, stays at the end
        return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()

    def ask(self, name: str) -> dict[str, Any]:
        """Ask by HEAD."""
        return ask_over_http(self._url(name), self.patience)

    def bring(self, name: str, part: Path, shown: Shown) -> dict[str, Any]:
        """Download, resuming and retrying."""
        return download(self._url(name), part, self.patience, shown)


@dataclass(frozen=True)
class StoreSource:
    """A folder or a bucket, through fsspec."""

    base: str
    protocol: str

    def address(self, name: str) -> str:
        """Return the file's address."""
        return f"{self.base.rstrip('/')}/{name}"

    def _system(self) -> Any:
        return fsspec.filesystem(self.protocol, **(S3_OPTIONS if self.protocol == "s3" else {}))

    def _faults(self) -> tuple[type[Exception], ...]:
        """Return what the store raises when it does not answer, or not so that its client understands it."""
        if self.protocol != "s3":
            return (OSError,)
        from aiohttp import ClientError  # an answer that was cut off

        # an address or a bucket's name that is none; a redirect to another region that leads back here
        return (OSError, BotoCoreError, ClientError, ValueError, RecursionError)

    def _explain(self, error: Exception) -> str:
        return (
            "it is redirected for ever" if isinstance(error, RecursionError) else redact(" ".join(str(error).split()))
        )

    def _check_bucket(self) -> None:
        """Raise UsageError if the bucket is not there: a month would be taken for one that comes later."""
        bucket = urlsplit(self.base).netloc
        try:
            self._system().info(f"s3://{bucket}")
        except FileNotFoundError as error:
            raise UsageError(f"expected a bucket {bucket!r} of months; there is none{OF_S3}") from error
        except PermissionError:
            return

    def _refusal(self, name: str, error: Exception) -> str:
        """Return why S3 does not let these keys in; "" where it does not say, and of a file that is not there it says no more either.

        To HEAD it answers with a number alone (403, or 400 for an expired token); asked for a list, it names the reason.
        """
        if not isinstance(error, PermissionError) and getattr(error, "errno", None) != errno.EINVAL:
            return ""
        bucket, key = urlsplit(self.base).netloc, urlsplit(self.address(name)).path.lstrip("/")
        try:
            listed = self._system().call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        except self._faults() as refusal:
            code = getattr(refusal.__cause__, "response", {}).get("Error", {}).get("Code")
            return f"S3 refuses the keys ({code})" if code in BAD_KEYS else ""
        there = any(entry["Key"] == key for entry in listed.get("Contents", ()))
        return "it is there, and these keys may not read it (s3:GetObject)" if there else ""

    def _failure(self, name: str, error: Exception) -> TaxiError:
        """Return what came of asking for a file: it is not there (NotPublished), or nobody can say (Offline)."""
        address, on_s3 = self.address(name), self.protocol == "s3"
        if on_s3 and (refusal := self._refusal(name, error)):
            return Offline(f"{address} cannot be asked for: {refusal}{OF_S3}")
        if not isinstance(error, FileNotFoundError | PermissionError):
            hint = OF_S3 if on_s3 else OTHER
            return Offline(f"the source did not answer: {address}: {self._explain(error)}{hint}")
        refused = on_s3 and isinstance(error, PermissionError)
        if on_s3 and not refused:
            self._check_bucket()
        return NotPublished(f"{address} is not there{', or may not be read with these keys' * refused}")

    def ask(self, name: str) -> dict[str, Any]:
        """Ask the file system; a local file's ETag is its size and time of change."""
        try:
            info = self._system().info(self.address(name))
        except self._faults() as error:
            raise self._failure(name, error) from error
        changed = info.get("LastModified") or info.get("mtime")
        return {
            "etag": info.get("ETag") or f"{info['size']}-{changed}",
            "size": info["size"],
            "last_modified": str(changed),
        }

    def bring(self, name: str, part: Path, shown: Shown) -> dict[str, Any]:
        """Copy, chunk by chunk."""
        found = self.ask(name)
        check_size(found["size"], self.address(name))
        try:
            with (
                making_room_known(part),
                self._system().open(self.address(name), "rb") as stream,
                open(part, "wb") as target,
            ):
                shutil.copyfileobj(stream, target, 1 << 20)
        except NoRoom:
            remove(part)
            raise
        except self._faults() as error:
            remove(part)
            raise Unreachable(f"reading {self.address(name)} failed: {self._explain(error)}") from error
        if part.stat().st_size != found["size"]:
            raise Unreachable(f"expected {found['size']:,} bytes of {self.address(name)}; got {part.stat().st_size:,}")
        return found


def open_source(address: str, patience: Patience | None = None) -> Source:
    """Return the source at an https or http address, ``s3://…``, ``file://…`` or a folder; raise UsageError otherwise."""
    parts = urlparse(address)
    if parts.scheme in ("http", "https") and parts.netloc:
        return SiteSource(address, patience or Patience())
    if parts.scheme == "s3" and parts.netloc:
        return StoreSource(address, "s3")
    folder = Path(unquote(parts.path)) if parts.scheme == "file" else Path(address).expanduser()
    if address and parts.scheme in ("", "file") and folder.is_dir():
        return StoreSource(str(folder.resolve()), "file")
    raise UsageError(
        f"expected a source as https://…, s3://bucket/…, file:///… or a folder that exists, in the TLC's layout; got {shown_address(address)!r}"
    )


def month_name(service: str, month: str) -> str:
    """Return the publisher's name of a month's file."""
    return f"trip-data/{service}_tripdata_{month}.parquet"


def is_published(source: Source, service: str, month: str) -> bool:
    """Say whether the month is there, without reading it; raise Unreachable if the source does not answer."""
    try:
        source.ask(month_name(service, month))
    except NotPublished:
        return False
    return True

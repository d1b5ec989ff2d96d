"""Settings: where data, reports and registry lie, as absolute places, from the environment and the root."""

import os
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from taxi.addresses import SQLITE, shown, split_sqlite
from taxi.errors import TaxiError, UsageError

if TYPE_CHECKING:
    from taxi.environment import Environment

PACKAGE = Path(__file__).resolve().parent
TEMPLATES = PACKAGE / "templates"
SHIPPED = PACKAGE / "checkout"  # params.yaml, requirements.lock and notebooks/ as a wheel brings them: read-only
TLC_SITE = "https://d37ci6vzurychx.cloudfront.net"
SERVICES = ("green", "yellow")
ENGINES = ("local", "dask")
API_KEYS = "TAXI_API_KEYS"
NOTEBOOKS = ("01-explore", "02-features", "03-monitor", "04-train", "05-compare")
TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
}


def parse_service(text: str) -> str:
    """Return ``text`` if it names a service whose months this project reads; raise UsageError otherwise."""
    if text not in SERVICES:
        raise UsageError(f"expected a service, one of {', '.join(SERVICES)}; got {text!r}")
    return text


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder, from ``start`` (default: the working folder) upwards, that holds ``params.yaml`` and ``notebooks/``.

    Outside any checkout it is the checkout that this package is installed from, or what its wheel brings.
    """
    here = (start or Path.cwd()).resolve()
    folders = (here, *here.parents, PACKAGE.parent)
    checkouts = (one for one in folders if (one / "params.yaml").is_file() and (one / "notebooks").is_dir())
    return next(checkouts, SHIPPED)


def home_of(root: Path) -> Path:
    """Return the folder that relative places count from: the root, or the working folder where the root is a wheel's own files."""
    return Path.cwd() if root == SHIPPED else root


def read_environment() -> "Environment":
    """Return what the environment says now."""
    from taxi.environment import Environment  # Pydantic, which `taxi --help` need not wait for

    return Environment()


def expand_home(path: Path) -> Path:
    """Return the path with the user's home in the place of ``~``; raise TaxiError where the system knows none."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise TaxiError(
            f"expected a home folder for {path}; HOME is not set and the user is unknown: set HOME"
        ) from error


def resolve_path(path: Path, start: Path) -> Path:
    """Return a path as an absolute one: a relative one counts from ``start``, ``~`` is the user's home."""
    return (start / expand_home(path)).resolve()


def resolve_address(address: str, root: Path) -> str:
    """Return a database's address with its SQLite file, if it names one, resolved as ``resolve_path`` does."""
    if not (named := split_sqlite(address)):
        return address
    if "?" in str(file := resolve_path(named[1], root)):
        raise UsageError(
            f"expected a folder without '?' for a SQLite file, whose address ends there; got {file.parent}"
        )
    return f"{named[0]}{file}{named[2]}"


def resolve_source(address: str, start: Path) -> str:
    """Return a source with its folder, if it is one, ``file:`` before it or not, resolved from ``start``."""
    if address.startswith("file:"):
        folder = address.removeprefix("file:").removeprefix("//").removeprefix("localhost/") or "."
        absolute = address.startswith("file://localhost/")
        return str(resolve_path(Path("/" * absolute + unquote(folder)), start))
    return address if urlsplit(address).scheme else str(resolve_path(Path(address), start))


@dataclass(frozen=True)
class Settings:
    """Places and addresses of one run, resolved to absolute paths."""

    root: Path
    source: str
    data: Path
    reports: Path
    tracking_uri: str
    engine: str = "local"
    scheduler: str | None = None
    attempt: str | None = None

    @property
    def told_source(self) -> str | None:
        """Return the source as a flow run may keep it; None where it holds a password: the flow then reads TAXI_SOURCE."""
        return self.source if shown(self.source) == self.source else None

    def month(self, service: str, month: str) -> "MonthPaths":
        """Return where the files of one month of one service lie; models and reports of a retrain lie apart."""
        return MonthPaths(self.data, self.reports, parse_service(service), month, self.attempt)

    def months_on_hand(self, service: str) -> list[str]:
        """Return the months whose trips were accepted and kept, oldest first."""
        return sorted(p.stem for p in (self.data / "trips" / service).glob("????-??.parquet"))

    @property
    def predictions(self) -> str:
        """Address of the prediction store: TAXI_PREDICTIONS, or a SQLite file beside the data."""
        return resolve_address(
            read_environment().predictions or f"{SQLITE}{self.data / 'predictions.db'}", home_of(self.root)
        )

    @property
    def metrics(self) -> str:
        """Address of the metrics store: TAXI_METRICS, or a SQLite file beside the data."""
        return resolve_address(read_environment().metrics or f"{SQLITE}{self.data / 'metrics.db'}", home_of(self.root))

    @property
    def artifacts(self) -> str | None:
        """Where a new MLflow experiment keeps its artifacts: TAXI_ARTIFACTS, as an address; None where nothing is said."""
        given = read_environment().artifacts
        if not given or urlsplit(given).scheme:
            return given
        return resolve_path(Path(given), home_of(self.root)).as_uri()

    @property
    def evidently(self) -> Path:
        """Folder of Evidently's workspace: `evidently ui --workspace` shows it."""
        return self.data / "evidently"

    @property
    def prefect(self) -> str | None:
        """Address of the Prefect server; None where runs start their own."""
        return read_environment().prefect

    @property
    def proxies(self) -> list[str]:
        """Addresses and networks of the proxies whose X-Forwarded-For the service takes for the caller's: TAXI_PROXIES; none by default."""
        given = (read_environment().proxies or "").replace(",", " ").split()
        try:
            return [str(ip_network(proxy)) for proxy in given]
        except ValueError as error:
            raise UsageError(f"expected TAXI_PROXIES as IP addresses or networks; {error}") from None

    @property
    def spool(self) -> Path:
        """Folder where predictions wait on disk until the store has them."""
        return self.data / "spool"

    @property
    def alarm_book(self) -> Path:
        """File that says which alarms stand and which messages wait for a channel."""
        return self.data / "alarms.json"

    @property
    def alarm_log(self) -> Path:
        """File that every alarm's message is appended to, one JSON object a line."""
        return self.reports / "alarms.jsonl"

    def server(self, service: str) -> Path:
        """Return where a service's server keeps checked versions and which of them serves."""
        return self.data / "serving" / parse_service(service)

    @property
    def zones(self) -> Path:
        """Folder with the publisher's zone files."""
        return self.data / "zones"


def parse_engine(engine: str, scheduler: str | None) -> str:
    """Return ``engine`` if it is one, with a scheduler where it needs one and none where it does not; raise UsageError otherwise."""
    if engine not in ENGINES:
        raise UsageError(f"expected an engine, one of {', '.join(ENGINES)}; got {engine!r}")
    if engine == "dask" and not scheduler:
        raise UsageError("expected the address of a Dask scheduler with --engine dask: --scheduler tcp://HOST:8786")
    if engine == "local" and scheduler:
        raise UsageError(
            f"expected no scheduler with --engine local; got {scheduler}. Add --engine dask, or leave it out"
        )
    return engine


def load_settings(source: str | None = None, engine: str | None = None, scheduler: str | None = None) -> Settings:
    """Return the settings of the environment, where nothing else is given.

    Its relative places count from the root, or from the working folder where a wheel's own files are the root; a ``source`` that
    is given counts from the working folder, as a user types it. Raises UsageError if engine and scheduler do not go together.
    """
    root, given = find_root(), read_environment()
    home, scheduler = home_of(root), scheduler or given.scheduler
    return Settings(
        root=root,
        source=resolve_source(source, Path.cwd()) if source else resolve_source(given.source or TLC_SITE, home),
        data=resolve_path(given.data, home),
        reports=resolve_path(given.reports, home),
        tracking_uri=resolve_address(given.tracking_uri, home),
        engine=parse_engine(engine or given.engine, scheduler),
        scheduler=scheduler,
        attempt=given.attempt,
    )


def load_locks() -> str | None:
    """Return where TAXI_LOCKS says that locks between machines are: an address, or a folder's absolute path; None where nothing is said."""
    given = read_environment().locks
    return resolve_source(given, home_of(find_root())) if given else None


def secret_file(name: str) -> Path | None:
    """Return the file that the environment variable ``name``_FILE names, for a secret that is kept in one."""
    named = os.environ.get(f"{name}_FILE")
    return resolve_path(Path(named), home_of(find_root())) if named else None


def read_secret(name: str) -> str:
    """Return the secret that the variable, or the file that ``name``_FILE names, holds; empty for none: no settings hold it, so that none can show it."""
    path = secret_file(name)
    try:
        return path.read_text(encoding="utf-8") if path else os.environ.get(name, "")
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} is none"
        raise UsageError(f"expected text in UTF-8 in the file that {name}_FILE names, {path}; {place}") from None


def load_api_keys() -> list[str]:
    """Return the API keys that the service accepts: TAXI_API_KEYS, or the file that TAXI_API_KEYS_FILE names.

    They are separated by commas or white space; a line that begins with "# " is a comment. Several make rotation possible; the
    file is read anew when it changes.
    """
    lines = [line for line in read_secret(API_KEYS).splitlines() if line.split()[:1] != ["#"]]
    return "\n".join(lines).replace(",", " ").split()


def load_alarm_channels(name: str) -> list[str]:
    """Return Apprise's addresses in the environment variable ``name``, or in the file that ``name``_FILE names.

    They are separated by white space and hold secrets: never print or keep them.
    """
    return read_secret(name).split()


@dataclass(frozen=True)
class MonthPaths:
    """Where the files of one month of one service lie."""

    data: Path
    report_root: Path
    service: str
    month: str
    attempt: str | None = None

    @cached_property
    def raw(self) -> Path:
        """The published bytes."""
        return self.data / "raw" / self.service / f"{self.month}.parquet"

    @cached_property
    def sidecar(self) -> Path:
        """Where the published bytes came from: address, ETag, size, sha256, time."""
        return self.raw.with_suffix(".json")

    @cached_property
    def trips(self) -> Path:
        """Kept trips, in the canonical schema."""
        return self.data / "trips" / self.service / f"{self.month}.parquet"

    @cached_property
    def quarantine(self) -> Path:
        """Refused rows, whole, with ``row`` and ``reason``."""
        return self.data / "quarantine" / self.service / f"{self.month}.parquet"

    @cached_property
    def split(self) -> Path:
        """Folder with the month's rows, split but not judged; there only until it is judged."""
        return self.data / "split" / self.service / self.month

    @cached_property
    def acceptance(self) -> Path:
        """Counts and the acceptance rules' findings, as JSON; there also when the month was refused."""
        return self.data / "acceptance" / self.service / f"{self.month}.json"

    @cached_property
    def models(self) -> Path:
        """Folder with the month's models: ``incumbent``, ``challenger``, ``winner``."""
        return self.data / "models" / self.service / self._made

    @property
    def search(self) -> Path:
        """What a search for a better recipe found before the month; there only where one was run."""
        return self.models / "search.json"

    @cached_property
    def reports(self) -> Path:
        """Folder with the month's reports."""
        return self.report_root / self.service / self._made

    @property
    def _made(self) -> str:
        return f"retrain/{self.attempt}" if self.attempt else self.month

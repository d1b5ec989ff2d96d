"""Local model store of a service, on its own disk: checked versions, which of them serves, what was refused, and why."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from taxi.errors import TaxiError, UsageError
from taxi.files import Damaged, LockHeld, locked, read_json, read_model, sha256_tree, write_json, write_model

KEPT = 3
UNASKED, ANSWERS, SILENT, UNCLEAR = "not asked yet", "answers", "does not answer", "cannot be understood"
EMPTY, STUCK = "names no champion", "answers, and this machine could not take its version up"


@dataclass(frozen=True)
class Entry:
    """A version that was checked and lies in ``folder`` (its name below ``versions``); ``since`` is when it was taken up."""

    version: int
    folder: str
    sha256: str
    trained_from: str
    trained_to: str
    since: str


@dataclass(frozen=True)
class Refusal:
    """A version that an alias named and that was not taken up."""

    arm: str
    version: int
    sha256: str
    reason: str
    at: str


@dataclass(frozen=True)
class Attempt:
    """An examination of a version: whether it is ``running``, how many before it ``crashed`` the process or were ``cut`` short."""

    arm: str
    version: int
    sha256: str
    running: bool = True
    crashed: int = 0
    cut: int = 0

    def is_of(self, version: int, sha256: str) -> bool:
        """Return whether it is of that version."""
        return (self.version, self.sha256) == (version, sha256)


@dataclass(frozen=True)
class State:
    """Which versions serve, and how the registry is; read by every worker, written by the follower alone."""

    champion: Entry | None = None
    challenger: Entry | None = None
    refused: tuple[Refusal, ...] = ()
    registry: str = UNASKED

    def arm(self, arm: str) -> Entry | None:
        """Return what serves in an arm."""
        found: Entry | None = getattr(self, arm)
        return found

    @property
    def degraded(self) -> bool:
        """Whether the registry, when last asked, named no champion that could be taken up, or did not answer."""
        return self.registry not in (UNASKED, ANSWERS)


def remedy(service: str) -> str:
    """Return what to do where a service has no champion."""
    return f"`taxi run --service {service} --month YYYY-MM` trains and registers one"


def now_text() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def sole_server(folder: Path) -> Iterator[None]:
    """Lock the folder of one service's server as long as the block lasts; raise UsageError while another server has it."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / ".serve.lock", timeout=0))
        except LockHeld as error:
            raise UsageError(
                f"expected no other `taxi serve` of this service on {folder}; one runs: end it, or set another TAXI_DATA"
            ) from error
        yield


class Place:
    """The folder of one service's server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = folder / "versions"
        self.state = folder / "state.json"
        self.nudge = folder / "nudge"
        self.examining = folder / "examining.json"
        self.looked = folder / "looked"

    def read_state(self) -> State:
        """Return the state; the empty one where none was written yet; raise TaxiError if it cannot be understood."""
        if not self.state.is_file():
            return State()
        try:
            written = read_json(self.state)
            arms = {arm: written[arm] and Entry(**written[arm]) for arm in ("champion", "challenger")}
            refused = tuple(Refusal(**one) for one in written["refused"])
            return State(**arms, refused=refused, registry=written["registry"])
        except (Damaged, KeyError, TypeError) as error:
            raise TaxiError(
                f"expected the server's state in {self.state}; it has {error!r}: remove the file"
            ) from error

    def write_state(self, state: State) -> None:
        """Write the state, whole or not at all."""
        write_json(self.state, asdict(state))

    def read_attempt(self) -> Attempt | None:
        """Return the examination that runs, or ended its process; None for none. TaxiError if it cannot be understood."""
        if not self.examining.is_file():
            return None
        return read_model(self.examining, Attempt, "a version under examination", "Remove the file.")

    def write_attempt(self, attempt: Attempt) -> None:
        """Write which version is examined."""
        write_model(self.examining, attempt)

    def find(self, entry: Entry) -> Path:
        """Return the folder of a checked version; raise TaxiError if its bytes are not those that were checked."""
        folder = self.versions / entry.folder
        try:
            intact = folder.is_dir() and sha256_tree(folder) == entry.sha256
        except OSError as error:
            raise TaxiError(f"expected version {entry.version} in {folder}; it cannot be read: {error}") from error
        if not intact:
            raise TaxiError(
                f"expected version {entry.version} with sha256 {entry.sha256} in {folder}; the local copy is another"
            )
        return folder

    def ask_again(self) -> None:
        """Have the follower look at the aliases now, and try again what it refused."""
        self.nudge.parent.mkdir(parents=True, exist_ok=True)
        self.nudge.touch()
        os.utime(self.nudge)

    def nudged_at(self) -> int:
        """Return when it was last nudged, in nanoseconds; 0 for never."""
        return self.nudge.stat().st_mtime_ns if self.nudge.exists() else 0

    def note_look(self) -> None:
        """Note that the registry was asked just now: a follower that hangs does so no more."""
        self.looked.touch()

    def looked_at(self) -> float:
        """Return when the registry was last asked, in seconds since 1970; 0 for never."""
        return self.looked.stat().st_mtime if self.looked.exists() else 0.0

    def prune(self, state: State) -> None:
        """Remove versions that serve no more, but for the three newest and what is younger than a minute."""
        used = {entry.folder for entry in (state.champion, state.challenger) if entry}
        idle = [path for path in self.versions.iterdir() if path.name not in used and not path.name.startswith(".")]
        for path in sorted(idle, key=lambda path: path.stat().st_mtime)[:-KEPT]:
            if time.time() - path.stat().st_mtime > 60:
                shutil.rmtree(path)

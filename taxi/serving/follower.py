"""Follower of the registry's aliases, in a process of its own: what passes its examination comes to the server's disk.

Only here is a version fetched and looked at for the first time: a malformed file that ends a process ends this one, the
supervisor starts it again, and the version that did it is refused.
"""

import ctypes
import errno
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from taxi.addresses import shown
from taxi.config import Settings
from taxi.errors import TaxiError, UsageError
from taxi.files import remove, remove_staging
from taxi.months import parse_month
from taxi.params import load_params
from taxi.registry.golden import check_golden, read_golden
from taxi.registry.mlflow_client import RegistryError
from taxi.registry.versions import Version, aliased_version, download_model
from taxi.serving.loader import ARMS, give_back, load_slot
from taxi.serving.local_store import (
    ANSWERS,
    EMPTY,
    SILENT,
    STUCK,
    UNCLEAR,
    Attempt,
    Entry,
    Place,
    Refusal,
    State,
    now_text,
    remedy,
)

_LOG = logging.getLogger(__name__)
STEP = 0.2
EDITED_SECONDS = 5.0
BEHIND = 10  # niceness: requests come first, examining a version can wait
ENDED = "examining it ended the process"
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
MOST_CRASHES = 2
MOST_CUTS = (
    5  # a kill from outside is no fault of the version's; but one that takes all memory ends a machine like that, too
)
# what OSError says of this machine, and of no version: full, out of handles, failing, read-only, closed to this user
OF_MACHINE = {
    getattr(errno, name)
    for name in ["ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "EIO", "EROFS", "EACCES", "EPERM"]
}


class Unreachable(TaxiError):
    """The registry, or its store of files, did not answer; nothing is known about the aliases."""


@dataclass(frozen=True)
class VersionSource:
    """Where versions come from; ``wanted`` and ``fetch`` raise Unreachable, ``fetch`` and ``examine`` anything that is wrong.

    ``lacking`` is what to tell a person while no champion is named.
    """

    wanted: Callable[[str], Version | None]
    fetch: Callable[[Version, Path], None]
    examine: Callable[[Version, Path], None]
    lacking: str = "the registry names no champion"


def folder_name(version: Version) -> str:
    """Return the name of a version's folder: another digest under the same number is another folder."""
    return f"{version.number}-{version.tags.get('model_sha256', 'none')[:12]}"


def _known_bad(state: State, version: Version) -> bool:
    sha256 = version.tags.get("model_sha256", "none")
    return any((one.version, one.sha256) == (version.number, sha256) for one in state.refused)


def _is_of_machine(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in OF_MACHINE


class Follower:
    """Keeps a server's place up to date with ``source``."""

    def __init__(self, place: Place, source: VersionSource) -> None:
        self.place, self.source = place, source
        self._lacked = False

    def start(self, crashed: bool = True) -> None:
        """Note which version's examination ended the last process, and remove what that left half-written or damaged.

        ``crashed``: it ended by a fault of its own, as far as is known; otherwise it was killed, or the whole service was.
        """
        self.place.versions.mkdir(parents=True, exist_ok=True)
        remove_staging(self.place.folder)
        remove(self.place.folder / "trees-2")  # grown trees, kept there before they were part of a model
        for path, read in ((self.place.state, self.place.read_state), (self.place.examining, self.place.read_attempt)):
            try:
                read()
            except TaxiError as error:
                _LOG.error("removed, and made anew from the registry: %s", error)
                remove(path)
        attempt = self.place.read_attempt()
        if attempt and attempt.running:
            crashes, cuts = attempt.crashed + crashed, attempt.cut + (not crashed)
            self._note_end(replace(attempt, running=False, crashed=crashes, cut=cuts))

    def _note_end(self, attempt: Attempt) -> None:
        """Keep count of a version's examinations in a row that ended the process; refuse it when there are too many."""
        if attempt.crashed < MOST_CRASHES and attempt.cut < MOST_CUTS:
            _LOG.warning("version %d is tried once more: %s", attempt.version, ENDED)
            self.place.write_attempt(attempt)
        else:
            self._refuse(Refusal(attempt.arm, attempt.version, attempt.sha256, ENDED, now_text()))
            remove(self.place.examining)

    def forget_refusals(self) -> None:
        """Try again what was refused."""
        self._update(refused=())
        remove(self.place.examining)

    def look(self) -> State:
        """Look at the aliases once and take up what they name and what passes; return the state after it."""
        try:
            wanted = {arm: self.source.wanted(arm) for arm in ARMS}
            if wanted["champion"] is None:
                return self._go_on_without()
            self._lacked = False
            if wanted["challenger"] and wanted["champion"] and wanted["challenger"].number == wanted["champion"].number:
                wanted["challenger"] = None
            self._drop_old_refusals([one for one in wanted.values() if one])
            for arm, version in wanted.items():
                self._follow(arm, version)
            return self._update(registry=ANSWERS)
        except Unreachable as error:
            _LOG.warning("the last good versions go on serving: %s", error)
            return self._update(registry=SILENT)
        except (
            Exception
        ) as error:  # a version registered by other means may lack anything; following must not end with it
            if _is_of_machine(error):
                _LOG.error("the last good versions go on serving, and what the aliases name is tried again: %s", error)
                return self._update(registry=STUCK)
            _LOG.exception("the last good versions go on serving: the registry's answer cannot be understood")
            return self._update(registry=UNCLEAR)

    def _go_on_without(self) -> State:
        """Change nothing while no champion is named: an emptied registry is no reason to end what serves, or its trial."""
        if not self._lacked:
            _LOG.warning("%s", self.source.lacking)
        self._lacked = True
        return self._update(registry=EMPTY)

    def _follow(self, arm: str, version: Version | None) -> None:
        state = self.place.read_state()
        if version is None:
            self._update(**{arm: None})
        elif not _known_bad(state, version) and not self._has(state.arm(arm), version):
            self._take_up(arm, version)

    def _has(self, entry: Entry | None, version: Version) -> bool:
        """Return whether ``entry`` is the version and its local copy still what was checked: a worker that starts needs it."""
        if entry is None or (entry.version, entry.sha256) != (version.number, version.tags.get("model_sha256")):
            return False
        try:
            return bool(self.place.find(entry))
        except TaxiError as error:
            _LOG.error("fetched again: %s", error)
            return False

    def _take_up(self, arm: str, version: Version) -> None:
        sha256, name = version.tags.get("model_sha256", "none"), folder_name(version)
        before, folder = self.place.read_attempt(), self.place.versions / name
        if before is None or not before.is_of(version.number, sha256):
            before = Attempt(arm, version.number, sha256)
        try:  # also left by SystemExit: an end that was asked for is no fault of the version's
            self.place.write_attempt(replace(before, arm=arm, running=True))
            self._examine(version, folder)
        except Unreachable:
            raise
        except Exception as error:  # a bad version may fail in any way; whatever it is, the version is refused
            if _is_of_machine(error):
                raise
            self._refuse(Refusal(arm, version.number, sha256, self._reason(error), now_text()))
        else:
            entry = Entry(version.number, name, sha256, version.trained_from, version.trained_to, now_text())
            _LOG.info("version %d passed and is the %s from now on", version.number, arm)
            self.place.prune(self._update(**{arm: entry}))
        finally:
            remove(self.place.examining)
        give_back()

    def _examine(self, version: Version, folder: Path) -> None:
        if not folder.is_dir():
            remove(folder)
        self.source.fetch(version, folder)
        self.source.examine(version, folder)

    def _reason(self, error: Exception) -> str:
        said = str(error).replace(f"{self.place.folder}/", "").splitlines()
        words = said[0][:500] if said else ""
        return words if isinstance(error, TaxiError) else f"{type(error).__name__}: {words}"

    def _refuse(self, refusal: Refusal) -> None:
        _LOG.error("version %d is refused as %s: %s", refusal.version, refusal.arm, refusal.reason)
        self._update(refused=(*self.place.read_state().refused, refusal))

    def _drop_old_refusals(self, named: list[Version]) -> None:
        state = self.place.read_state()
        numbers = {one.number for one in named}
        self._update(refused=tuple(one for one in state.refused if one.version in numbers))

    def _update(self, **changes: object) -> State:
        before = self.place.read_state()
        after = replace(before, **changes)  # type: ignore[arg-type]
        if after != before:
            self.place.write_state(after)
        return after


def _poll_seconds(params: Path) -> float:
    try:
        return load_params(params).serve.poll_seconds
    except UsageError as error:  # it is being edited; the workers say so too
        _LOG.error("params.yaml is not understood: %s", error)
        return EDITED_SECONDS


def pause(place: Place, seconds: float, seen: int) -> None:
    """Wait, give or take a fifth, or until a nudge newer than ``seen``."""
    until = time.monotonic() + seconds * random.uniform(0.8, 1.2)
    while time.monotonic() < until and place.nudged_at() == seen:
        time.sleep(STEP)


def follow(settings: Settings, service: str, last_exit: ctypes.c_long) -> None:
    """Follow the aliases until SIGTERM: the body of the follower's process; ``last_exit`` says how the one before it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an exception, so that what is under way is tidied up
    os.nice(BEHIND)
    place = Place(settings.server(service))
    follower, seen = Follower(place, registry_source(settings, service)), place.nudged_at()
    follower.start(-last_exit.value in CRASHES)
    while True:
        follower.look()
        place.note_look()
        pause(place, _poll_seconds(settings.root / "params.yaml"), seen)
        if place.nudged_at() != seen:
            seen = place.nudged_at()
            follower.forget_refusals()


# --- Candidates for serving, from the registry: fetched with their digests checked, then examined before they may serve.

Answer = TypeVar("Answer")


def _asking(ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except RegistryError as error:
        raise Unreachable(str(error)) from error


def examine(service: str, version: Version, folder: Path) -> None:
    """Load a fetched version and have it answer as it did when registered; raise what is wrong with it."""
    if version.service != service:
        raise TaxiError(f"expected a version of {service}; version {version.number} is of {version.service}")
    for month in (version.trained_from, version.trained_to):
        parse_month(month)
    check_golden(load_slot(folder, version.number).model, read_golden(version.tags.get("golden")))


def registry_source(settings: Settings, service: str) -> VersionSource:
    """Return the registry at ``settings.tracking_uri`` as a source of versions."""
    uri = settings.tracking_uri
    return VersionSource(
        wanted=lambda arm: _asking(lambda: aliased_version(uri, service, arm)),
        fetch=lambda version, folder: _asking(lambda: download_model(uri, version, folder)),
        examine=lambda version, folder: examine(service, version, folder),
        lacking=f"the registry at {shown(uri)} names no champion of {service}: {remedy(service)}",
    )

"""The follower takes up what passes, refuses the rest with its reason, and keeps what serves when nobody answers."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taxi.errors import TaxiError
from taxi.files import sha256_tree, write_json
from taxi.registry.versions import Version
from taxi.serving.follower import ENDED, Follower, Unreachable, VersionSource
from taxi.serving.local_store import STUCK, Entry, Place, State
from tests.support.serving_worlds import wait_for


@dataclass
class Shelf:
    """Versions that can be fetched; ``fault`` is raised by ``examine`` for a version's number."""

    aliases: dict[str, Version | None] = field(default_factory=lambda: {"champion": None, "challenger": None})
    faults: dict[int, Exception] = field(default_factory=dict)
    down: bool = False
    files_down: bool = False
    fetched: list[int] = field(default_factory=list)
    examining: Callable[[], object] = lambda: None

    def wanted(self, arm: str) -> Version | None:
        if self.down:
            raise Unreachable("no answer")
        return self.aliases[arm]

    def fetch(self, version: Version, folder: Path) -> None:
        if self.files_down:
            raise Unreachable("no files")
        self.fetched.append(version.number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(str(version.number), encoding="utf-8")

    def examine(self, version: Version, folder: Path) -> None:
        self.examining()
        if version.number in self.faults:
            raise self.faults[version.number]


def version(number: int, tmp_path: Path, **tags: str) -> Version:
    sample = tmp_path / f"sample-{number}"
    sample.mkdir(exist_ok=True)
    (sample / "recipe.json").write_text(str(number), encoding="utf-8")
    return Version(
        "green", number, "2024-01", "2024-02", None, {}, {"model_sha256": sha256_tree(sample)} | tags, "", ""
    )


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def follower(tmp_path: Path, shelf: Shelf) -> Follower:
    made = Follower(Place(tmp_path / "serving"), VersionSource(shelf.wanted, shelf.fetch, shelf.examine))
    made.start()
    return made


def test_a_champion_that_passes_is_taken_up_once(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)

    state = [follower.look(), follower.look()][-1]

    assert state.champion and state.champion.version == 3 and state.registry == "answers"
    assert shelf.fetched == [3]
    assert follower.place.find(state.champion).name == state.champion.folder


def test_what_does_not_pass_is_refused_with_its_reason_and_asked_for_no_more(
    follower: Follower, shelf: Shelf, tmp_path: Path
) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    follower.look()
    shelf.aliases["champion"], shelf.faults[4] = version(4, tmp_path), TaxiError("golden trip 2 differs")

    state = [follower.look(), follower.look()][-1]

    assert state.champion and state.champion.version == 3
    assert [(one.version, one.arm, one.reason) for one in state.refused] == [(4, "champion", "golden trip 2 differs")]
    assert shelf.fetched == [3, 4]


def test_a_nudge_tries_again_what_was_refused(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    shelf.aliases["champion"], shelf.faults[4] = version(4, tmp_path), ValueError("bad\nlines and a stack")
    assert follower.look().refused[0].reason == "ValueError: bad"

    shelf.faults.clear()
    follower.forget_refusals()

    assert follower.look().champion.version == 4  # type: ignore[union-attr]


def test_a_refusal_is_forgotten_when_no_alias_names_it_and_before_another_version_serves(
    follower: Follower, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.aliases["champion"], shelf.faults[4] = version(4, tmp_path), TaxiError("no")
    follower.look()
    shelf.aliases["champion"] = version(5, tmp_path)

    told: list[State] = []
    monkeypatch.setattr(follower.place, "prune", told.append)  # is told what serves from now on
    follower.look()

    assert [(one.champion and one.champion.version, one.refused) for one in told] == [(5, ())]


@pytest.mark.parametrize("what", ["down", "files_down"])
def test_without_an_answer_the_last_good_version_stays(
    follower: Follower, shelf: Shelf, tmp_path: Path, what: str
) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    follower.look()
    shelf.aliases["champion"] = version(4, tmp_path)

    setattr(shelf, what, True)
    state = follower.look()

    assert state.champion and state.champion.version == 3 and state.degraded and state.refused == ()
    setattr(shelf, what, False)
    assert follower.look().champion.version == 4  # type: ignore[union-attr]


def test_an_answer_that_cannot_be_understood_stops_nothing(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    follower.look()
    del shelf.aliases["challenger"]

    state = follower.look()

    assert state.champion and state.champion.version == 3 and state.degraded


def test_a_challenger_leaves_with_its_alias_and_is_never_the_champion_itself(
    follower: Follower, shelf: Shelf, tmp_path: Path
) -> None:
    shelf.aliases |= {"champion": version(3, tmp_path), "challenger": version(4, tmp_path)}
    assert follower.look().challenger.version == 4  # type: ignore[union-attr]
    shelf.aliases["challenger"] = None
    assert follower.look().challenger is None
    shelf.aliases["challenger"] = version(3, tmp_path)
    assert follower.look().challenger is None


def test_a_registry_without_a_champion_does_not_stop_the_service(
    follower: Follower, shelf: Shelf, tmp_path: Path
) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    follower.look()
    shelf.aliases["champion"] = None

    assert follower.look().champion.version == 3  # type: ignore[union-attr]


def test_the_same_number_with_other_bytes_is_another_version(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    first = follower.look().champion
    shelf.aliases["champion"] = version(3, tmp_path, model_sha256="0" * 64)

    second = follower.look().champion

    assert first and second and first.folder != second.folder


KILLER = """
import os, signal, sys
from pathlib import Path
from taxi.serving.follower import Follower, VersionSource
from taxi.registry.versions import Version
from taxi.serving.local_store import Place
one = Version("green", 9, "2024-01", "2024-02", None, {}, {"model_sha256": "9" * 64}, "", "")
die = lambda version, folder: os.kill(os.getpid(), signal.SIGSEGV)
for _ in range(3):
    child = os.fork()
    if child == 0:
        follower = Follower(Place(Path(sys.argv[1])), VersionSource(lambda arm: one if arm == "champion" else None, lambda version, folder: None, die))
        follower.start()
        follower.look()
        os._exit(0)
    print(os.waitpid(child, 0)[1] & 127)
"""


@pytest.mark.slow
def test_a_version_that_ends_the_process_twice_is_refused_at_the_next_start(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(int(signal.SIGSEGV)), str(int(signal.SIGSEGV)), "0"]

    refused = Place(tmp_path).read_state().refused
    assert [(one.version, one.reason) for one in refused] == [(9, ENDED)]


def ended(follower: Follower, shelf: Shelf, crashed: bool) -> None:
    """Have the follower examine, and leave what it leaves when it ends at that moment; then start it again."""
    left: list[bytes] = []
    follower.place.write_state(State(refused=follower.place.read_state().refused))
    shelf.examining = lambda: left.append(follower.place.examining.read_bytes())
    follower.look()
    shelf.examining = lambda: None
    follower.place.examining.write_bytes(left[0])
    follower.place.write_state(State())
    follower.start(crashed)


@pytest.mark.parametrize(("crashed", "times"), [(True, 1), (False, 4)], ids=["a crash", "four kills from outside"])
def test_a_version_whose_examination_was_ended_is_tried_once_more(
    follower: Follower, shelf: Shelf, tmp_path: Path, crashed: bool, times: int
) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)

    for _ in range(times):
        ended(follower, shelf, crashed)
        follower.start(crashed)  # before anything is examined again: no examination was ended by it
    state = follower.look()

    assert state.refused == () and state.champion and state.champion.version == 3
    assert not follower.place.examining.exists()
    ended(follower, shelf, crashed)
    assert follower.look().refused == (), "ends are counted in a row"


@pytest.mark.parametrize(("crashed", "times"), [(True, 2), (False, 5)], ids=["two crashes", "five kills"])
def test_a_version_that_ends_the_process_again_and_again_is_refused_until_somebody_asks(
    follower: Follower, shelf: Shelf, tmp_path: Path, crashed: bool, times: int
) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)

    for _ in range(times):
        ended(follower, shelf, crashed)

    assert [(one.version, one.reason) for one in follower.look().refused] == [(3, ENDED)]
    follower.forget_refusals()
    ended(follower, shelf, crashed)
    assert follower.look().champion.version == 3  # type: ignore[union-attr]


def test_an_end_that_was_asked_for_is_no_fault_of_the_version_under_examination(
    follower: Follower, shelf: Shelf, tmp_path: Path
) -> None:
    shelf.aliases["champion"], shelf.examining = version(3, tmp_path), lambda: sys.exit(0)

    for _ in range(3):
        with pytest.raises(SystemExit):
            follower.look()
        follower.start()

    shelf.examining = lambda: None
    state = follower.look()
    assert state.refused == () and state.champion


FOLLOWING = """
import ctypes, sys, time
from pathlib import Path
from taxi.config import load_settings
from taxi.registry.versions import Version
from taxi.serving import follower
one = Version("green", 9, "2024-01", "2024-02", None, {}, {"model_sha256": "9" * 64}, "", "")
slow = lambda version, folder: time.sleep(600)
follower.registry_source = lambda *_: follower.VersionSource(lambda arm: one, lambda version, folder: None, slow)
follower.follow(load_settings(), "green", ctypes.c_long(0))
"""


@pytest.mark.slow
def test_sigterm_while_a_version_is_examined_ends_the_process_and_leaves_no_suspicion(tmp_path: Path) -> None:
    place = Place(tmp_path / "serving" / "green")
    process = subprocess.Popen([sys.executable, "-c", FOLLOWING], env={**os.environ, "TAXI_DATA": str(tmp_path)})
    wait_for(place.examining.is_file, "that it examines", 60)

    process.terminate()

    assert process.wait(60) == 0  # it is the last that a busy machine lets run
    assert not place.examining.exists() and place.read_state().refused == ()


@pytest.mark.parametrize("spoil", ["changed", "removed", "a file"])
def test_a_local_copy_that_was_damaged_is_fetched_again(
    follower: Follower, shelf: Shelf, tmp_path: Path, spoil: str
) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    entry = follower.look().champion
    assert entry
    folder = follower.place.versions / entry.folder
    if spoil == "changed":
        (folder / "recipe.json").write_text("changed", encoding="utf-8")
    else:
        shutil.rmtree(folder)
        folder.touch() if spoil == "a file" else None

    state = follower.look()

    assert shelf.fetched == [3, 3] and state.champion and follower.place.find(state.champion) == folder
    follower.look()
    assert shelf.fetched == [3, 3]


def test_a_damaged_copy_without_a_registry_is_no_refusal_and_is_fetched_when_it_answers(
    follower: Follower, shelf: Shelf, tmp_path: Path
) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    shutil.rmtree(follower.place.versions / follower.look().champion.folder)  # type: ignore[union-attr]

    shelf.files_down = True
    assert follower.look().refused == ()
    shelf.files_down = False

    assert follower.place.find(follower.look().champion)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["state.json", "examining.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"champion": 3}', "\x00" * 40])
def test_a_damaged_note_of_its_own_is_made_anew(
    follower: Follower, shelf: Shelf, tmp_path: Path, name: str, content: str
) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    follower.look()
    (follower.place.folder / name).write_text(content, encoding="utf-8")

    follower.start()

    assert follower.look().champion.version == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EIO])
def test_what_fails_on_this_machine_is_tried_again_and_is_no_fault_of_the_version(
    follower: Follower, shelf: Shelf, tmp_path: Path, number: int
) -> None:
    shelf.aliases["champion"], shelf.faults[4] = version(4, tmp_path), OSError(number, os.strerror(number))

    state = follower.look()
    assert state.refused == () and state.registry == STUCK and state.degraded
    shelf.faults.clear()

    assert follower.look().champion.version == 4  # type: ignore[union-attr]


def test_an_emptied_registry_is_told_once_changes_nothing_and_is_no_registry_that_answers(
    follower: Follower, shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.aliases |= {"champion": version(3, tmp_path), "challenger": version(4, tmp_path)}
    before = follower.look()
    shelf.aliases |= {"champion": None, "challenger": None}

    state = [follower.look(), follower.look()][-1]

    assert (state.champion, state.challenger) == (before.champion, before.challenger)
    assert state.degraded and state.registry == "names no champion"
    assert caplog.text.count("names no champion") == 1


def test_a_copy_that_was_changed_on_disk_is_not_loaded(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    shelf.aliases["champion"] = version(3, tmp_path)
    entry = follower.look().champion
    assert entry
    (follower.place.versions / entry.folder / "recipe.json").write_text("changed", encoding="utf-8")

    with pytest.raises(TaxiError, match="the local copy is another"):
        follower.place.find(entry)


def test_old_versions_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for number in range(8):
        folder = place.versions / f"{number}-x"
        folder.mkdir(parents=True)
        os.utime(folder, (1000 + number, 1000 + number))

    place.prune(State(champion=Entry(0, "0-x", "", "", "", "")))

    assert sorted(path.name for path in place.versions.iterdir()) == ["0-x", "5-x", "6-x", "7-x"]


def test_grown_trees_that_an_edition_before_kept_are_removed(follower: Follower) -> None:
    kept = follower.place.folder / "trees-2" / "1-x.npz"
    kept.parent.mkdir()
    kept.touch()

    follower.start()

    assert not kept.parent.exists()


def test_a_state_that_cannot_be_understood_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.read_state() == State()
    write_json(place.state, {"champion": {"version": 1}})
    with pytest.raises(TaxiError, match="remove the file"):
        place.read_state()
    shutil.rmtree(tmp_path)

"""What a worker does before its first version is loaded, and when another takes over."""

import asyncio
import time
import weakref
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taxi.params import load_params
from taxi.serving.api_keys import ApiKeys
from taxi.serving.loader import Loaded, Slots
from taxi.serving.local_store import Entry, Place, State, now_text
from taxi.serving.metrics import REGISTRY
from taxi.serving.middleware import Rules
from taxi.serving.reloader import Watch
from tests.support.serving_worlds import ROOT

ENTRY = Entry(1, "1-abc", "abc", "2024-01", "2024-01", now_text())


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    place = Place(tmp_path)
    predictor = SimpleNamespace(slots=Slots())
    rules = Rules(load_params(ROOT / "params.yaml").serve, ApiKeys([]))
    return Watch(place, tmp_path / "params.yaml", predictor, rules)  # type: ignore[arg-type]


def test_a_request_waits_for_the_first_champion_that_a_sibling_serves_already(watch: Watch) -> None:
    watch._place.write_state(State(champion=ENTRY))

    async def ask() -> bool:
        waiting = asyncio.create_task(watch.first(60))
        await asyncio.sleep(0.1)
        early = waiting.done()
        watch._predictor.slots = Slots(champion="loaded")  # type: ignore[arg-type]
        await waiting
        return early

    assert not asyncio.run(ask())


def test_nothing_is_waited_for_where_no_version_has_come(watch: Watch) -> None:
    asyncio.run(asyncio.wait_for(watch.first(60), 30))


def test_a_first_champion_that_cannot_be_loaded_is_not_waited_for_for_ever(watch: Watch) -> None:
    watch._place.write_state(State(champion=ENTRY))
    asyncio.run(asyncio.wait_for(watch.first(0.1), 30))


def test_a_first_champion_that_cannot_be_loaded_is_told_at_once_and_loaded_as_soon_as_it_can_be(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_renew_rules", lambda: None)
    monkeypatch.setattr("taxi.serving.reloader.RETRY_SECONDS", 0.0)
    watch._pause = 0.0
    watch._place.write_state(State(champion=ENTRY))
    nothing: Any = None

    async def heal() -> bool:
        await watch.look()
        await asyncio.wait_for(watch.first(60), 1)
        failed = "champion" in watch.failed
        monkeypatch.setattr(watch, "_load", lambda entry: Loaded(entry.version, nothing, nothing, entry))
        await watch.look()
        return failed

    assert asyncio.run(heal())
    assert watch._predictor.slots.champion and watch.failed == set()


def test_a_damaged_state_ends_no_worker(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_renew_rules", lambda: None)
    watch._place.state.write_text("{", encoding="utf-8")

    async def start() -> None:
        await watch.look()
        await asyncio.wait_for(watch.first(60), 1)

    asyncio.run(start())


def test_when_memory_is_given_back_nothing_holds_the_version_that_served_before(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(entry: Entry) -> Loaded:
        nothing: Any = None
        return Loaded(entry.version, nothing, nothing, entry)

    before = load(ENTRY)
    held, seen = weakref.ref(before), []
    watch._predictor.slots = Slots(champion=before)
    del before
    watch._place.write_state(State(champion=replace(ENTRY, version=2, sha256="def")))
    monkeypatch.setattr(watch, "_load", load)
    monkeypatch.setattr("taxi.serving.reloader.give_back", lambda: seen.append(held()))

    asyncio.run(watch._follow_state())

    assert watch._predictor.slots.champion.version == 2  # type: ignore[union-attr]
    assert seen == [None]


def number(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"taxi_{name}")


def test_a_version_that_is_named_and_not_taken_up_and_the_last_look_at_the_registry_are_told(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_renew_rules", lambda: None)
    asyncio.run(watch.look())
    never = number("registry_looked_timestamp_seconds"), number("pending_swaps")

    watch._place.write_state(State(champion=replace(ENTRY, trained_to="2023-12")))
    watch._place.note_look()
    asyncio.run(watch.look())
    waiting, looked = number("pending_swaps"), number("registry_looked_timestamp_seconds") or 0
    nothing: Any = None
    monkeypatch.setattr(watch, "_load", lambda entry: Loaded(entry.version, nothing, nothing, entry))
    watch._retry_at = 0
    asyncio.run(watch.look())

    assert (never, waiting, number("pending_swaps")) == ((0, 0), 1, 0) and time.time() - looked < 60
    trained_to = REGISTRY.get_sample_value("taxi_model_trained_to_timestamp_seconds", {"arm": "champion"})
    assert trained_to == datetime(2024, 1, 1, tzinfo=UTC).timestamp()

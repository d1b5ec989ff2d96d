"""A service without a model that can answer says so at once, why, and what to do: to programs in JSON, to people by a page."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from taxi.serving.local_store import EMPTY, SILENT, Refusal, State
from tests.support.in_process import Here, get, post, read_replies, running_here
from tests.support.serving_worlds import TRIP, wait_for

ACCEPT = b"Accept: text/html,application/xhtml+xml"
REFUSED = Refusal("champion", 4, "x", "a secret of the registry's", "")


def put_state(here: Here, state: State) -> None:
    here.service.place.write_state(state)
    wait_for(lambda: here.service.watch.state == state, "that it has read the state", 10)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (State(registry=EMPTY), "`taxi run --service green --month YYYY-MM`"),
        (State(registry=SILENT), "does not answer"),
        (State(refused=(REFUSED,)), "GET /model says why"),
        (State(), "ask again"),
    ],
    ids=["no champion", "no registry", "refused", "not asked yet"],
)
def test_what_is_missing_is_said_at_once_to_programs_and_people(tmp_path: Path, state: State, says: str) -> None:
    with running_here(tmp_path) as here:
        put_state(here, state)
        began = time.monotonic()
        replies = [read_replies(here.talk(sent, cut=True))[0] for sent in (post(TRIP), get("/readyz"), get("/"))]
        (page,) = read_replies(here.talk(get("/", ACCEPT)))

    assert time.monotonic() - began < 2
    for reply in replies:
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "no-model", "5")
        assert says in reply.body.decode() and "secret" not in reply.body.decode()
    assert (page.status, page.headers["content-type"].split(";")[0]) == (503, "text/html")
    assert says.replace("`", "") in page.body.decode().replace("`", "")


def test_a_damaged_local_copy_is_no_wait_and_serves_as_soon_as_it_is_mended(
    tmp_path: Path, small_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi.serving.reloader.RETRY_SECONDS", 0.1)
    folder = tmp_path / "data" / "serving" / "green" / "versions" / "1-x"
    with running_here(tmp_path, small_models[1]) as here:
        assert read_replies(here.talk(post(TRIP), cut=True))[0].status == 200
    whole = (folder / "mean.ubj").read_bytes()
    state = here.service.place.read_state()

    (folder / "mean.ubj").write_bytes(whole[:-1] + b"\x00")
    with running_here(tmp_path) as here:
        began = time.monotonic()
        (reply,) = read_replies(here.talk(post(TRIP), cut=True))
        assert (reply.status, reply.code) == (503, "no-model") and time.monotonic() - began < 2
        (folder / "mean.ubj").write_bytes(whole)  # as the follower fetches it again
        assert state.champion
        here.service.place.write_state(replace(state, champion=replace(state.champion, since=state.champion.since)))
        wait_for(lambda: read_replies(here.talk(get("/readyz")))[0].status == 200, "that it serves", 10)

"""The whole loop, live: roads slow down, the live error raises an alarm, its event starts a retrain, the service swaps.

    python -m benchmarks.loop_demo --place build/loop          (or: make loop-demo)

Nobody touches anything between the first slow trip and the recovery. Exit 0 only if the challenger was promoted by the gate, the
service swapped, the alarm recovered, and not one request failed. Synthetic trips; needs no network.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pandas as pd

from taxi.data.schema import AT_PICKUP
from taxi.data.synthetic import write_sample
from taxi.files import remove, write_json
from taxi.months import iterate_months
from taxi.serving.replay import replay_month
from tests.support.automation import SMALL, Automation
from tests.support.builders import build_sample_trips
from tests.support.serving_worlds import ADDRESS, wait_for

QUIET, SLOW, LAST = "2024-03", "2024-04", "2024-12"  # run before; the first slow month; as far as traffic could go
ROWS, CHUNK, CHUNK_SECONDS = 12_000, 500, 5.0
CALM_CHUNKS, AFTER_CHUNKS = 2, 4
CHECK_SECONDS, PATIENCE = 10.0, 1800.0
BEGUN = time.monotonic()


class Failed(Exception):
    """The loop did not close; the message says where."""


def say(words: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"{time.monotonic() - BEGUN:6.0f} s  {words}", flush=True)


def month_traffic(month: str) -> pd.DataFrame:
    """Return a month's kept trips in true order, as a replay sends them."""
    trips = build_sample_trips(month, ROWS, shifted=month >= SLOW)
    return trips.sort_values(["pickup", "row"], ignore_index=True)[["row", *AT_PICKUP, "duration"]]


def chunks() -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the end of the last quiet month, then slow months, some hundred trips at a time."""
    for month in iterate_months(QUIET, LAST):
        trips = month_traffic(month)
        trips = trips.tail(CALM_CHUNKS * CHUNK) if month == QUIET else trips
        for first in range(0, len(trips) - CHUNK + 1, CHUNK):
            yield month, trips.iloc[first : first + CHUNK].reset_index(drop=True)


@dataclass
class Traffic:
    """Live trips that never stop while the loop runs: predictions when they begin, outcomes when they end."""

    url: str
    sent: list[dict[str, Any]] = field(default_factory=list)
    fault: str | None = None

    def __post_init__(self) -> None:
        """Get the thread ready."""
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for month, trips in chunks():
            if self._stop.is_set():
                return
            span = (trips["pickup"].max() - trips["pickup"].min()).total_seconds()
            try:
                result = replay_month(trips, "green", month, self.url, span / CHUNK_SECONDS, 4, every=3600)
            except Exception as error:  # whatever it is, it is a failure of the service, and is reported at the end
                self.fault = f"{type(error).__name__}: {error}"
                return
            self.sent.append(result)
            scores = result["metrics"] or {}
            versions = ", ".join(result["versions"])
            say(
                f"  traffic of {month}: {result['answered']} trips by version {versions}, RMSE {scores.get('rmse', 0):.2f}"
            )

    def stop(self) -> None:
        """Stop after the trips that are under way."""
        self._stop.set()
        self.thread.join()

    @property
    def failed(self) -> int:
        """Return how many predictions failed or outcomes were not taken."""
        return sum(one["failed"] + one["trips"] - one["outcomes"] for one in self.sent) + (self.fault is not None)

    def chunks_of(self, version: int, slow: bool = True) -> list[dict[str, Any]]:
        """Return what came of chunks that this version alone answered, in slow months or in the quiet one."""
        own = [one for one in self.sent if list(one["versions"]) == [str(version)]]
        return [one for one in own if (one["month"] >= SLOW) == slow]

    def rmse(self, version: int, slow: bool = True) -> float:
        """Return the RMSE (minutes) over those chunks."""
        scores = [one["metrics"] for one in self.chunks_of(version, slow)]
        return float((sum(one["n"] * one["rmse"] ** 2 for one in scores) / sum(one["n"] for one in scores)) ** 0.5)


def check_alarms(world: Automation, kind: str, rule: str) -> dict[str, Any] | None:
    """Run the live check as an hourly deployment would; return what it told of that kind and rule."""
    answer = json.loads(world.run("pipelines.cli", "alarms", "check", "--service", "green", "--live", "--json"))
    for one in answer["told"]:
        say(f"alarm {one['kind']}: {one['rule']} ({one['severity']}), {one['said']}")
    return next((one for one in answer["told"] if (one["kind"], one["rule"]) == (kind, rule)), None)


def await_alarm(world: Automation, traffic: Traffic, kind: str) -> dict[str, Any]:
    """Check every ten seconds until the live error's alarm is raised, or recovers."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not traffic.fault:
        if told := check_alarms(world, kind, "live-rmse"):
            return told
        time.sleep(CHECK_SECONDS)
    raise Failed(f"no live-rmse alarm {kind}; traffic: {traffic.fault or 'goes on'}")


def await_retrain(world: Automation) -> dict[str, Any]:
    """Wait for the flow run that the automation starts, and return what came of it."""
    runs = wait_for(world.flow_runs, "a flow run that the automation started", PATIENCE)
    say(f"the automation started flow run {runs[0]['name']} ({runs[0]['created_by']['display_value']})")
    ended = wait_for(world.ended_runs, "the end of the flow run", PATIENCE)
    if any(one["state_type"] != "COMPLETED" for one in ended):
        raise Failed(f"flow runs ended as {[one['state_name'] for one in ended]}; see {world.place}/prefect-worker.log")
    lines = (world.place / "reports/green/retrain/decisions.jsonl").read_text(encoding="utf-8").splitlines()
    return dict(json.loads(lines[0]))


def start_service(world: Automation) -> str:
    """Start the service and return its address."""
    process = world.start("serve", "pipelines.cli", "serve", "--service", "green", "--port", "0")
    log = world.place / "serve.log"

    def found() -> Any:
        if process.poll() is not None:
            raise Failed(f"the service ended: {log.read_text()[-2000:]}")
        return ADDRESS.search(log.read_text())

    url = f"http://127.0.0.1:{wait_for(found, 'the address in the log', PATIENCE).group(2)}"
    wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200, "a ready service", PATIENCE)
    return url


def serving(url: str) -> int:
    """Return the champion's version that answers."""
    return int(httpx.get(f"{url}/model", timeout=30).json()["champion"]["version"])


def prepare(world: Automation) -> None:
    """Publish quiet months and run them; publish the first slow month, which nobody has looked at yet."""
    write_sample(world.place / "source", "green", list(iterate_months("2024-01", QUIET)), rows=ROWS)
    say("Prefect server, work pool, retrain deployment with its automation, worker")
    world.start_prefect()
    say(f"2024-01 to {QUIET} are run, quiet months")
    words = ("--service", "green", "--from", "2024-01", "--to", QUIET, "--no-version", "--json")
    answer = json.loads(world.run("pipelines.cli", "backfill", *words).splitlines()[-1])
    for month in answer["months"]:
        say(f"  {month['month']}: {month['verdict']}, {'promoted' if month['promoted'] else month['reason']}")


def close_loop(world: Automation, url: str, traffic: Traffic) -> dict[str, Any]:
    """Wait for alarm, retrain, swap and recovery, and return the figures; raise Failed where it stops."""
    before = serving(url)
    wait_for(lambda: len(traffic.sent) >= CALM_CHUNKS or traffic.fault, "calm traffic", PATIENCE)
    say(f"{SLOW}: from here on roads are 18 % slower. The publisher has the month's file (really it comes weeks later;")
    say("  a retrain before that would be held, and the daily run would make up for it when the file is there)")
    write_sample(world.place / "source", "green", [SLOW], rows=ROWS, shift_month=SLOW)
    slow_from = time.monotonic()
    raised = await_alarm(world, traffic, "raised")
    raised_after = time.monotonic() - slow_from
    decision = await_retrain(world)
    say(f"retrain: {'promoted' if decision['promoted'] else 'NOT promoted'}; {decision['reason']}")
    if not decision["promoted"]:
        raise Failed(f"the gate did not promote: {decision['reason']}")
    retrained_after = time.monotonic() - slow_from
    wait_for(lambda: serving(url) != before, "the service's swap", PATIENCE)
    after = serving(url)
    say(f"the service swapped from version {before} to {after}")
    wait_for(lambda: len(traffic.chunks_of(after)) >= AFTER_CHUNKS or traffic.fault, "trips by the new one", PATIENCE)
    recovered = await_alarm(world, traffic, "recovered")
    return {
        "version": {"before": before, "after": after},
        "rmse": {
            "quiet": traffic.rmse(before, slow=False), "slow": traffic.rmse(before), "recovered": traffic.rmse(after),
        },
        "alarm": raised["said"],
        "recovery": recovered["said"],
        "seconds": {"raised": raised_after, "retrained": retrained_after, "recovered": time.monotonic() - slow_from},
    }  # fmt: skip


def play(place: Path) -> int:
    """Play the loop in ``place``, emptied before; return the exit code."""
    remove(place)
    place.mkdir(parents=True)
    world = Automation(place, {"model": SMALL, "serve": {"poll_seconds": 5}})
    try:
        prepare(world)
        traffic = Traffic(start_service(world))
        traffic.thread.start()
        try:
            figures = close_loop(world, traffic.url, traffic)
        finally:
            traffic.stop()
    except (Failed, AssertionError) as error:
        say(f"the loop did not close: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; what was started is ended")
        return 130
    finally:
        world.stop()
    return tell(world, traffic, figures)


def tell(world: Automation, traffic: Traffic, figures: dict[str, Any]) -> int:
    """Print the figures and where to look; return 1 if a request failed."""
    trips = sum(one["trips"] for one in traffic.sent)
    figures |= {"trips": trips, "failed": traffic.failed, "fault": traffic.fault, "wall": time.monotonic() - BEGUN}
    figures |= {"load": os.getloadavg(), "sent": traffic.sent}
    write_json(world.place / "loop.json", figures)
    rmse, reports = figures["rmse"], world.place / "reports"
    say(f"{trips:,} trips predicted and told, {traffic.failed} failed; load average {figures['load'][0]:.1f}")
    print(f"""
Live RMSE, minutes: {rmse["quiet"]:.2f} on quiet roads; {rmse["slow"]:.2f} on slow roads, old version; {rmse["recovered"]:.2f} after the swap.
Slow roads make trips longer and so their error too: by 18 % at best, to {1.18 * rmse["quiet"]:.2f}.
The trips are synthetic, the recipe is a small one. Where to look:
  {reports}/index.html                      all months, the champion's error over time
  {reports}/green/retrain/                  the retrain: 04-train, 05-compare, and decisions.jsonl with what asked for it
  {reports}/alarms.jsonl                    the alarms and their recovery, as they were told
  {world.place}/loop.json                   these figures, chunk by chunk
How to set this up for a team: docs/automation.md
""")
    return 1 if traffic.failed else 0


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, required=True, help="folder to work in; emptied first")
    sys.exit(play(parser.parse_args().place.resolve()))

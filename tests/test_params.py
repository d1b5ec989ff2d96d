"""Every entry of params.yaml is known, of its type and in range, or one line says which is not, and where."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from taxi.errors import UsageError
from taxi.operations.doctor import CHECKS, examine
from taxi.params import Params, load_params, override, parse_values
from tests.support.worlds import ROOT

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
PARAMS = load_params(ROOT / "params.yaml")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def said_of(folder: Path, content: str | bytes) -> str:
    """What reading such a params.yaml says."""
    path = folder / "params.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UsageError) as refused:
        load_params(path)
    return str(refused.value)


WRONG = [
    ("accept: ", "clean: {min_minutes: 1, max_minutes: 5}\naccept: ", "line {line}: expected clean once; it is in line 3 already"),
    ("  rounds: 160", "  rounds: 160\n  rounds: 9", "line {next}: expected model.rounds once; it is in line {line} already"),
    ("rounds: 160", 'rounds: "160"', "line {line}: expected model.rounds to be a valid integer; got '160'"),
    ("rounds: 160", "rounds: 160.0", "line {line}: expected model.rounds to be a valid integer; got 160.0"),
    ("rounds: 160", "rounds: yes", "line {line}: expected model.rounds to be a valid integer; got True"),
    ("rounds: 160", "rouds: 160", "line {line}: model.rouds is not known: did you mean rounds?; line 51: model.rounds is missing"),
    ("rounds: 160", "<<: {rounds: 160}", "line {line}: model.<< is not known; line 51: model.rounds is missing"),
    ("max_bin: 64", "max_bin: &some 64\n  threads: *some", "line {next}: expected plain values; got an alias (*)"),
    ("rounds: 160", f"rounds: {'[' * 100_000}", "line {line}: expected plain values; got more than 10 levels"),
    ("rounds: 160", f"rounds: {'9' * 5000}", "line {line}: " + "9" * 60 + ": Exceeds the limit (4300 digits)"),
    ("rounds: 160", "rounds: !!python/name:os.system", "line {line}: could not determine a constructor for the tag"),
    ("rounds: 160", "\trounds: 160", "line {line}: found character that cannot start any token"),
    ("rounds: 160", "rounds: 160 \x07", "line {line}: control characters are not allowed"),
    ("kept_share_refuse: 0.75", "kept_share_refuse: 75", "line {line}: expected accept.kept_share_refuse to be less than or equal to 1; got 75"),
    ("kept_share_refuse: 0.75", "kept_share_refuse: 0.95", "line {line}: accept: expected kept_share_refuse <= kept_share_warn; got 0.95 and 0.9"),
    ("median_minutes: [5, 25]", "median_minutes: [25, 5]", "line {line}: expected accept.median_minutes to have the smaller number first; got [25, 5]"),
    ("live_volume: [0.50, 0.10]", "live_volume: [0.1, 0.5]", "expected alarms.live_volume to have the larger number first; got [0.1, 0.5]"),
    ("folds: 5", "folds: -3", "line {line}: expected features.folds to be greater than or equal to 2; got -3"),
    ("coverage_low: 0.72", "coverage_low: 0.9", "line {line}: monitor: expected coverage_low < coverage_high; got 0.9 and 0.88"),
    ("coverage_low: 0.72", "coverage_low: 0.5", "expected alarms.coverage_error.0 <= monitor.coverage_low; got 0.65 and 0.5"),
    ("coverage_low: 0.72", "coverage_low: .nan", "line {line}: expected monitor.coverage_low to be a finite number; got nan"),
    ("rmse_error: 1.25", "rmse_error: 1.05", "expected monitor.rmse_ratio <= alarms.rmse_error; got 1.1 and 1.05"),
    ("volume_drop: 0.30", "volume_drop: 30", "line {line}: expected monitor.volume_drop to be less than or equal to 1; got 30"),
    ("rmse_ratio: 1.10", "rmse_ratio: 110", "line {line}: expected monitor.rmse_ratio to be less than or equal to 10; got 110"),
    ("live_least: 200 ", "live_least: 9000 ", "alarms: expected live_least <= live_trips; got 9000 and 2000"),
    ("since: null", "since: 2026-13-45", "line {line}: 2026-13-45: month must be in 1..12"),
    ("since: null", "since: 5", "line {line}: expected experiment.since to be a valid datetime; got 5"),
    ("  min_minutes", "min_minutes", "line {next}: mapping values are not allowed in this context"),
    ("accept: ", "akzept: ", "line {line}: akzept is not known: did you mean accept?; accept is missing"),
    ("seed: 7\n\nretrain:", "seed: 7\n  volume_drop: 0.3\n\nretrain:", "line {next}: model.volume_drop is not known: did you mean monitor.volume_drop?"),
    ("data: data", "dat: data", "line {line}: alarms.owners.dat is not known: did you mean data?"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "said"), WRONG, ids=lambda text: text[:40])
def test_a_wrong_entry_is_named_by_its_line_in_one_line(right: str, wrong: str, said: str, tmp_path: Path) -> None:
    assert right in TEXT
    begun, line = time.monotonic(), TEXT[: TEXT.index(right)].count("\n") + 1

    found = said_of(tmp_path, TEXT.replace(right, wrong, 1))

    assert found.startswith("params.yaml: ")
    assert said.format(line=line, next=line + 1) in found
    assert "\n" not in found
    assert len(found) < 400
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TEXT.encode("utf-16"), "line 1: expected text in UTF-8; got the byte 0xff: save it as UTF-8"),
        (TEXT.replace("# when", "# gr\xf6\xdfer", 1).encode("cp1252"), "line 7: expected text in UTF-8; got the byte 0xf6"),
        (TEXT.encode() + b"\x00", "control characters are not allowed"),
        (b"", "clean is missing; accept is missing; features is missing; and 9 more"),
        (b"[1]", "expected the sections of parameters to be an object; got [1]"),
        (b"---\na: 1\n---\nb: 2\n", "line 3: but found another document"),
        (b"#" * 1_000_001, "expected 1,000,000 bytes at most; it has 1,000,001"),
    ],
    ids=["UTF-16", "Windows-1252", "a zero byte", "nothing", "a list", "two documents", "a megabyte"],
)  # fmt: skip
def test_a_file_that_is_not_parameters_at_all_is_told_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    found = said_of(tmp_path, content)

    assert said in found and "\n" not in found


def numbers(content: Any, *way: str | int) -> Iterator[tuple[str | int, ...]]:
    """The way to every number."""
    if isinstance(content, dict | list):
        for key, inner in content.items() if isinstance(content, dict) else enumerate(content):
            yield from numbers(inner, *way, key)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield way


@pytest.mark.parametrize(
    "value", [-1, 1e12, float("nan"), float("inf"), "1", True, None, [1]], ids=lambda value: repr(value)
)
def test_every_number_has_bounds_and_a_type(value: Any) -> None:
    accepted, content = [], PARAMS.model_dump(mode="json")
    for section, entry, *place in numbers(content):
        old = content[section][entry]
        new = [value if [number] == place else one for number, one in enumerate(old)] if place else value
        with suppress(UsageError):
            override(PARAMS, {f"{section}.{entry}": new})
            accepted.append((section, entry, place))

    assert accepted == []


def test_what_is_there_today_means_what_it_meant(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf" + TEXT.replace("since: null", "since: 2026-03-05").replace("0.15", "15e-2").encode()
    )

    params = load_params(path)

    assert params.experiment.start is not None and params.experiment.start.isoformat() == "2026-03-05T00:00:00+00:00"
    assert params.model == PARAMS.model
    assert Params.model_validate(PARAMS.model_dump()) == PARAMS
    assert (params.clean.min_minutes, type(params.clean.min_minutes)) == (1.0, float)


def test_the_doctor_says_the_same_as_every_command(checkout: Path) -> None:
    from taxi.config import Settings

    settings = Settings(checkout, "", checkout / "data", checkout / "reports", "")
    check = [one for one in CHECKS if one.name == "params"]
    said = said_of(checkout, TEXT.replace("rmse_ratio: 1.10", "rmse_ratio: 110"))

    (found,) = examine(check, settings)
    (checkout / "params.yaml").write_text(TEXT, encoding="utf-8")
    (right,) = examine(check, settings)

    assert (found.level, found.says) == ("broken", said)
    assert right.level == "ok" and "in range" in right.says


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["each=[1"], "expected the value of each as in YAML; got '[1': line 1: expected ',' or ']'"),
        (["each=2026-13-45"], "month must be in 1..12"),
        ([f"each={'[' * 5000}"], "expected the value of each as in YAML"),
        (["each=1", "each=2"], "expected a parameter as name=value, each once; got 'each=2'"),
        (["each"], "expected a parameter as name=value, each once; got 'each'"),
    ],
    ids=["a list not closed", "month 13", "deep", "twice", "no value"],
)
def test_a_parameter_on_the_command_line_that_cannot_be_read_is_a_usage_error(given: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_values(given)

    assert said in str(refused.value) and "\n" not in str(refused.value)

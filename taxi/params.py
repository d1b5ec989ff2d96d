"""Parameters: the schema of ``params.yaml``, every number that decides something, typed, bounded and checked."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from operator import le, lt
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from taxi.config import find_root
from taxi.errors import UsageError

# --- What every section of ``params.yaml`` is: a name that is not known is an error, and nobody changes a value once it is read.

SIGNS = {"<": lt, "<=": le}


class Section(BaseModel):
    """A part of ``params.yaml``; ``relations`` say how its numbers must lie to each other, as ``low <= high``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    relations: ClassVar[tuple[str, ...]] = ()

    def entry(self, name: str) -> Any:
        """Return the entry of a dotted name; of a pair, 0 is the first number and 1 the second."""
        value: Any = self
        for part in name.split("."):
            value = value[int(part)] if part.isdigit() else getattr(value, part)
        return value

    @model_validator(mode="after")
    def _hold_relations(self) -> Self:
        for relation in self.relations:
            first, sign, second = relation.split()
            low, high = self.entry(first), self.entry(second)
            if not SIGNS[sign](low, high):
                facts = {"relation": relation, "low": f"{low:g}", "high": f"{high:g}", "entry": first}
                raise PydanticCustomError("relation", "expected {relation}; got {low} and {high}", facts)
        return self


def _with_first(which: Literal["smaller", "larger"]) -> AfterValidator:
    """Return the check that the smaller, or the larger, number of a pair stands first."""

    def check(pair: tuple[float, float]) -> tuple[float, float]:
        if pair[0] != (min if which == "smaller" else max)(pair):
            raise PydanticCustomError("order", "Input should have the {which} number first", {"which": which})
        return pair

    return AfterValidator(check)


# --- Kinds of values. A percentage in the place of a share or a ratio is out of bounds: such a limit would never be passed.

Rising, Falling = _with_first("smaller"), _with_first("larger")
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(gt=1, le=10)]
RowsRatio = Annotated[float, Field(gt=1, le=50)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Months = Annotated[int, Field(ge=1, le=240)]
Days = Annotated[int, Field(ge=1, le=3660)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Minutes = Annotated[float, Field(ge=0, le=1440)]
Milliseconds = Annotated[float, Field(gt=0, le=60_000)]
Hour = Annotated[int, Field(ge=0, le=23)]
DaysOfMonth = Annotated[int, Field(ge=0, le=31)]
Miles = Annotated[float, Field(ge=0, le=500)]
Speed = Annotated[float, Field(ge=0, le=200)]
Dollars = Annotated[float, Field(ge=0, le=1000)]
Rounds = Annotated[int, Field(ge=1, le=10_000)]
Depth = Annotated[int, Field(ge=1, le=16)]
Weight = Annotated[float, Field(ge=0, le=10**6)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(min_length=1, max_length=200)]


# --- Section ``alarms`` of ``params.yaml``: from where on something is told, to whom, and without effect on any month.


class Owners(Section):
    """Who is asked to act, by the kind of trouble."""

    data: Text
    model: Text
    service: Text
    operations: Text


class AlarmParams(Section):
    """When the alarms go off. Pairs are: from where on a warning, from where on an error."""

    relations = ("live_least <= live_trips",)

    volume_error: Share
    rmse_error: Ratio
    coverage_error: Annotated[tuple[Share, Share], Rising]
    champion_months: Annotated[tuple[Months, Months], Rising]
    overdue_days: Annotated[tuple[Days, Days], Rising]
    stalled_months: Months
    live_trips: Count
    live_least: Count
    live_hours: Annotated[float, Field(gt=0, le=8784)]
    live_rmse_ratio: Annotated[tuple[Ratio, Ratio], Rising]
    live_volume: Annotated[tuple[Share, Share], Falling]
    live_volume_least: Count
    live_p99_ms: Annotated[tuple[Milliseconds, Milliseconds], Rising]
    live_every_minutes: Annotated[Minutes, Field(gt=0)]
    channels_env: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=200)
    channel_seconds: Seconds
    runbook: Text
    owners: Owners


# --- The section of ``params.yaml`` that is changed while the service runs; ``taxi.params`` reads it with the others.


class ExperimentParams(Section):
    """Champion against challenger on live trips. Shares, levels and effects are of 1."""

    mode: Literal["none", "shadow", "share"]
    share: Share
    salt: str = Field(min_length=1, max_length=16)
    since: datetime | None
    metric: Literal["rmse", "mae"]
    effect: float = Field(gt=0, lt=1)
    alpha: float = Field(gt=0, lt=0.5)
    power: float = Field(ge=0.5, lt=1)
    planned_trips: int = Field(ge=1000, le=10**9)
    least_days: int = Field(ge=2, le=366)
    ratio_alpha: float = Field(gt=0, lt=0.5)
    fallback_limit: Share
    unpaired_limit: Share
    complete_share: Part = 0.95
    uneven_limit: Share = 0.02

    @property
    def start(self) -> datetime | None:
        """``since`` with its zone; without one it is taken for UTC."""
        return self.since and (self.since if self.since.tzinfo else self.since.replace(tzinfo=UTC))


# --- Section ``serve`` of ``params.yaml``: read anew while the service runs, and without effect on any month.


class ServeParams(Section):
    """How the service behaves; all but the address is reread while it runs. Rates and bursts are per key or address."""

    poll_seconds: Seconds
    rate_per_second: float = Field(gt=0, le=10**6)
    burst: Count
    body_bytes: int = Field(ge=1000, le=10**9)
    body_seconds: Seconds
    answer_seconds: Seconds
    drain_seconds: float = Field(ge=0, le=3600)


class RetentionParams(Section):
    """How many days `taxi prune` leaves rows and files; alarms look back five weeks of predictions."""

    predictions_days: Annotated[int, Field(ge=35, le=36_600)] = 400
    live_metrics_days: Annotated[int, Field(ge=35, le=36_600)] = 400
    editions_days: Annotated[int, Field(ge=1, le=36_600)] = 400
    backtest_days: Annotated[int, Field(ge=1, le=36_600)] = 90
    copies_days: Annotated[int, Field(ge=1, le=36_600)] = 30
    logs_days: Annotated[int, Field(ge=35, le=36_600)] = 400


MonitorRule = Literal["volume", "null-block", "rmse", "coverage", "slice-rmse", "input-drift", "prediction-drift"]
ASIDE = {"alarms", "experiment", "release", "retention", "search", "serve"}


class CleanParams(Section):
    """Which trips are kept (minutes)."""

    relations = ("min_minutes < max_minutes",)

    min_minutes: Annotated[Minutes, Field(gt=0)]
    max_minutes: Minutes


class AcceptParams(Section):
    """When a month as a whole is refused or accepted with warnings. Shares are of 1."""

    relations = (
        *(f"{name}_refuse <= {name}_warn" for name in ("kept_share", "hour_overlap", "zone_overlap", "vendor_overlap")),
        *(f"{name}_warn <= {name}_refuse" for name in ("reason_share", "rows_ratio", "week_ratio", "missing_days")),
        *(f"{name}_warn <= {name}_refuse" for name in ("null_share_jump", "night_share")),
        "week_ratio_agrees <= week_ratio_refuse",
    )

    most_rows: Count = 25_000_000
    least_row_bytes: Annotated[float, Field(ge=0, le=1000)] = 2
    most_unpacked: Annotated[float, Field(ge=1, le=1000)] = 20
    kept_share_warn: Share
    kept_share_refuse: Share
    reason_share_warn: Share
    reason_share_refuse: Share
    rows_ratio_warn: RowsRatio
    rows_ratio_refuse: RowsRatio
    week_ratio_warn: Ratio
    week_ratio_refuse: Ratio
    week_ratio_agrees: Ratio
    rows_ratio_agrees: RowsRatio
    history_months: Months
    missing_days_warn: DaysOfMonth
    missing_days_refuse: DaysOfMonth
    null_share_jump_warn: Share
    null_share_jump_refuse: Share
    missing_share_refuse: Share
    quiet_from: Annotated[tuple[Hour, Hour], Rising]
    night_share_warn: Share
    night_share_refuse: Share
    hour_fit_gain: Share
    hour_overlap_warn: Share
    hour_overlap_refuse: Share
    zone_overlap_warn: Share
    zone_overlap_refuse: Share
    zone_swap_gain: Share
    vendor_overlap_warn: Share
    vendor_overlap_refuse: Share
    median_minutes: Annotated[tuple[Minutes, Minutes], Rising]
    median_miles: Annotated[tuple[Miles, Miles], Rising]
    median_mph: Annotated[tuple[Speed, Speed], Rising]
    median_dollars: Annotated[tuple[Dollars, Dollars], Rising]
    minutes_ratio_refuse: Ratio
    miles_ratio_refuse: Ratio
    speed_ratio_refuse: Ratio
    dollars_ratio_refuse: Ratio


class FeatureParams(Section):
    """How history is learnt."""

    smoothing: Weight
    folds: int = Field(ge=2, le=100)


class ModelParams(Section):
    """The model's recipe."""

    kind: Literal["xgboost", "linear", "pair-median"]
    planned: bool
    window_months: Months
    half_life_days: float = Field(gt=0, le=100_000)
    season_doubt: float = Field(ge=0, lt=1)
    max_rows: Count
    calibration_days: Days
    trips_per_round: Count
    rounds: Rounds
    learning_rate: Part
    max_depth: Depth
    colsample_bytree: Part
    head_rounds: Rounds
    head_learning_rate: Part
    head_max_depth: Depth
    head_colsample_bytree: Part
    interval_rows: int = Field(ge=1000, le=10**9)
    interval_rounds: Rounds
    interval_learning_rate: Part
    interval_max_depth: Depth
    planned_rounds: Rounds
    planned_learning_rate: Part
    planned_max_depth: Depth
    planned_head_rounds: Rounds
    planned_head_learning_rate: Part
    min_child_weight: Weight
    subsample: Part
    reg_lambda: Weight
    max_bin: int = Field(ge=2, le=256)
    device: Literal["cpu", "cuda"]
    threads: int = Field(ge=1, le=1024)
    seed: Seed

    def for_planned(self) -> "ModelParams":
        """Return the recipe of the second model: with a distance there is more to learn, for more and deeper trees."""
        names = ("rounds", "learning_rate", "max_depth", "head_rounds", "head_learning_rate")
        return self.model_copy(update={name: getattr(self, f"planned_{name}") for name in names})


class RetrainParams(Section):
    """When a challenger is trained; months of 0 switch a trigger off."""

    policy: Literal["auto", "always", "never"]
    on_alarm: list[MonitorRule]
    oldest_months: int = Field(ge=0, le=240)
    every_months: int = Field(ge=0, le=240)


class PromoteParams(Section):
    """What a challenger must show."""

    resamples: int = Field(ge=100, le=10**6)
    confidence: float = Field(ge=0.5, lt=1)
    slice_loss: Share
    slice_min_trips: Count
    seed: Seed


class MonitorParams(Section):
    """When the monitor speaks up. Effect sizes are unitless; shares and ratios are of 1."""

    relations = ("coverage_low < coverage_high",)

    sample_rows: Count
    column_drift: Part
    prediction_drift: Part
    drifted_share: Share
    volume_drop: Share
    volume_rise: Annotated[float, Field(gt=0, le=10)]
    null_share_jump: Share
    rmse_ratio: Ratio
    coverage_low: Share
    coverage_high: Share
    slice_rmse_ratio: Ratio
    slice_min_trips: Count
    seed: Seed


class ReleaseParams(Section):
    """How a version goes from dev over staging to prod."""

    approval: list[Literal["dev", "staging", "prod"]]
    synthetic: bool
    uncommitted: bool


class SearchParams(Section):
    """How much a search for a better recipe may cost."""

    trials: Annotated[int, Field(ge=1, le=100_000)]
    seconds: float = Field(gt=0, le=31 * 86_400)
    folds: int = Field(ge=1, le=100)
    rows: Count
    judged_rows: Count
    startup_trials: Annotated[int, Field(ge=1, le=100_000)]
    seed: Seed


class Params(Section):
    """All of ``params.yaml``."""

    relations = (
        "monitor.volume_drop <= alarms.volume_error",
        "monitor.rmse_ratio <= alarms.rmse_error",
        "alarms.coverage_error.0 <= monitor.coverage_low",
        "monitor.coverage_high <= alarms.coverage_error.1",
    )

    clean: CleanParams
    accept: AcceptParams
    features: FeatureParams
    model: ModelParams
    retrain: RetrainParams
    promote: PromoteParams
    monitor: MonitorParams
    experiment: ExperimentParams
    release: ReleaseParams
    search: SearchParams
    alarms: AlarmParams
    serve: ServeParams
    retention: RetentionParams = RetentionParams()

    def lasting(self) -> dict[str, Any]:
        """Return what decides the outcome of a month's run: all but what is served, and how recipes are searched."""
        return self.model_dump(mode="json", exclude=ASIDE)


# --- Reading ``params.yaml``: each value with the line of its entry, so that what is wrong with it can be found.

MOST_BYTES, DEEPEST, TOLD = 1_000_000, 10, 3
_EXPONENT = re.compile(r"[-+]?\d+e[-+]?\d+", re.IGNORECASE)  # a number everywhere but in YAML 1.1


def _check_shape(text: str) -> None:
    """Raise YAMLError for what PyYAML cannot be trusted with: nesting ends the process, aliases hide a value's line."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
            fault = "an alias (*)" if depth <= DEEPEST else f"more than {DEEPEST} levels"
            raise yaml.MarkedYAMLError(problem=f"expected plain values; got {fault}", problem_mark=event.start_mark)  # type: ignore[arg-type]


def _content(node: yaml.Node | None, name: str, lines: dict[str, int]) -> Any:
    """Return a node's content, and enter the line of each entry; raise YAMLError for an entry that is there twice."""
    if isinstance(node, yaml.SequenceNode):
        return [_content(inner, f"{name}.{number}", lines) for number, inner in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    content: dict[str, Any] = {}
    for key, value in node.value if node else ():
        own = key.value if isinstance(key, yaml.ScalarNode) else "?"
        entry = f"{name}.{own}".lstrip(".")
        if own in content:
            fault = f"expected {entry} once; it is in line {lines[entry]} already"
            raise yaml.MarkedYAMLError(problem=fault, problem_mark=key.start_mark)
        lines[entry] = key.start_mark.line + 1
        content[own] = _content(value, entry, lines)
    return content


def _scalar(node: yaml.ScalarNode) -> Any:
    try:
        value = yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:  # a date of month 13, a number of 5,000 digits
        raise yaml.MarkedYAMLError(problem=f"{node.value[:60]}: {error}", problem_mark=node.start_mark) from error
    if isinstance(value, str) and not node.style and _EXPONENT.fullmatch(value):
        return float(value)
    return datetime.combine(value, time()) if type(value) is date else value


def _entries(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _entries(field.annotation, f"{prefix}{name}.")


def _nearest(name: str) -> str:
    """Return which entry may be meant: one of the same section, else one of such a name in another."""
    section, _, own = name.rpartition(".")
    named = {entry.rpartition(".")[2]: entry for entry in _entries(Params)}
    siblings = [last for before, _, last in (entry.rpartition(".") for entry in _entries(Params)) if before == section]
    near = get_close_matches(own, siblings, 1) or [named[one] for one in get_close_matches(own, named, 1, 0.8)]
    return f": did you mean {near[0]}?" if near else ""


def _fault(error: ErrorDetails, lines: Mapping[str, int]) -> str:
    """Return what is wrong with one entry: its line, its name, what was expected, what came."""
    name = ".".join(map(str, [*error["loc"], *([error["ctx"]["entry"]] if error["type"] == "relation" else [])]))
    line = next((lines[one] for one in (name, name.rpartition(".")[0]) if one in lines), 0)
    if error["type"] == "extra_forbidden":
        said = f"{name} is not known{_nearest(name)}"
    elif error["type"] == "missing":
        said = f"{name} is missing"
    elif error["type"] == "relation":
        said = f"{'.'.join(map(str, error['loc']))}: {error['msg']}".removeprefix(": ")
    else:
        wanted = re.sub(r"^\w+ should ", "to ", error["msg"])
        said = f"expected {name or 'the sections of parameters'} {wanted}; got {error['input']!r:.60}"
    return f"line {line}: {said}" if line else said


def _validate(content: Any, named: str, lines: Mapping[str, int]) -> Params:
    try:
        return Params.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        errors = sorted(error.errors(include_url=False), key=lambda one: one["type"] == "missing")
        more = f"; and {len(errors) - TOLD} more" if len(errors) > TOLD else ""
        faults = "; ".join(_fault(one, lines) for one in errors[:TOLD])
        raise UsageError(f"{named}: {faults}{more}") from error


def load_params(path: Path | None = None) -> Params:
    """Read and check ``params.yaml``; an unknown, repeated, missing, mistyped or senseless entry raises UsageError that names it."""
    path, lines = path or find_root() / "params.yaml", dict[str, int]()
    if (size := path.stat().st_size) > MOST_BYTES:
        raise UsageError(f"{path.name}: expected {MOST_BYTES:,} bytes at most; it has {size:,}")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
        _check_shape(text)
        content = _content(yaml.compose(text, yaml.CSafeLoader), "", lines)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path.name}: line {line}: expected text in UTF-8; got the byte 0x{raw[error.start]:02x}: save it as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path.name}: {_yaml_fault(error, text)}") from error
    return _validate(content, path.name, lines)


def _yaml_fault(error: yaml.YAMLError, text: str) -> str:
    """Return PyYAML's error in one line; of a character that it refuses it knows the place in the text only."""
    mark, place = getattr(error, "problem_mark", None), getattr(error, "position", 0)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"line {mark.line + 1 if mark else text.count(chr(10), 0, place) + 1}: {' '.join(said.split())}"


# --- Other values than those of ``params.yaml``, for one run: given as ``section.name=value``, checked as the file is.


def parse_values(given: Sequence[str]) -> dict[str, Any]:
    """Return name to value for texts like ``rows=60``, values as in YAML; raise UsageError for others, and for a name given twice."""
    values: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name or name in values:
            raise UsageError(f"expected a parameter as name=value, each once; got {text!r}")
        try:
            values[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            fault = _yaml_fault(error, value) if isinstance(error, yaml.YAMLError) else error
            raise UsageError(f"expected the value of {name} as in YAML; got {value!r:.60}: {fault}") from error
    return values


def parse_overrides(given: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    """Return ``section.name`` to value for texts like ``model.rounds=60``; raise UsageError for others."""
    values = parse_values(given)
    if wrong := [name for name in values if "." not in name or name.partition(".")[0] not in sections]:
        listed = ", ".join(sections)
        raise UsageError(f"expected a parameter as section.name=value, section one of {listed}; got {wrong[0]!r}")
    return values


def override(params: Params, values: dict[str, Any]) -> Params:
    """Return the parameters with other values by ``section.name``; raise UsageError if one is unknown or does not fit."""
    content = params.model_dump(mode="json")
    for name, value in values.items():
        section, _, entry = name.partition(".")
        content[section][entry] = value
    return _validate(content, f"params.yaml with {', '.join(values)}", {})

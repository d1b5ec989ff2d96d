"""Result of a month (``month.json``): what a run prints, the gallery reads and a later run compares with; versioned."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field, model_validator

from taxi.config import NOTEBOOKS, MonthPaths, Settings
from taxi.data.acceptance import NO_ROWS, Acceptance, Rows, read_acceptance
from taxi.data.month_rules import RuleFinding
from taxi.errors import UsageError
from taxi.files import as_json, read_model, write_model
from taxi.months import shift_month
from taxi.params import Params, load_params
from taxi.training.policy import Facts, TrainingDecision, decide_training, find_faults
from taxi.training.step_result import (
    Check,
    CompareResult,
    MonitorResult,
    Scores,
    Verdict,
    checks_from_lines,
    list_alarms,
)

FORMAT: Literal[2] = 2

if TYPE_CHECKING:
    from taxi.training.plan import Plan


class JudgedModel(BaseModel):
    """A registered version, and its scores (minutes) on the month."""

    model_config = ConfigDict(frozen=True)

    version: int
    metrics: Scores | None


def findings_from_lines(lines: list[str]) -> list[dict[str, str]]:
    """Return the acceptance rules' warnings, as JSON, from the lines that format 1 kept: ``rule: message``."""
    return [{"rule": rule, "level": "warn", "got": message} for rule, message in (x.split(": ", 1) for x in lines)]


class MonthResult(BaseModel):
    """The result of one month of one service; ``champion`` is the version in use when the month began.

    Format 1 (a file without ``format``) held lines of text where there are ``checks`` and ``findings`` now, and is still read.
    ``findings`` are the acceptance rules' warnings, and all that they found where the month was refused.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[2] = FORMAT
    service: str
    month: str
    status: Literal["done", "refused", "not-published"]
    reason: str
    rows: Rows = NO_ROWS
    findings: list[RuleFinding] = []
    synthetic: dict[str, Any] | None = None
    champion: JudgedModel | None = None
    challenger: JudgedModel | None = None
    winner: int | None = None
    trained: bool = False
    trained_because: str | None = None
    decision: TrainingDecision | None = None
    promoted: bool = False
    verdict: Verdict | None = None
    checks: list[Check] = []
    window: list[str] = []
    reports: list[str] = []
    seconds: dict[str, float] = {}
    edition: str | None = None
    fingerprint: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, kept: Any) -> Any:
        if not isinstance(kept, dict) or "format" in kept or "checks" in kept:
            return kept
        lines = kept.get("alarm_reasons") or [], kept.get("alarms") or [], kept.get("numbers") or {}
        upgraded = {"format": FORMAT, "checks": checks_from_lines(*lines)}
        return {"findings": findings_from_lines(kept.get("warnings") or [])} | kept | upgraded

    @computed_field  # type: ignore[prop-decorator]
    @property
    def warnings(self) -> list[str]:
        """The acceptance rules' warnings, as lines to print."""
        return [str(finding) for finding in self.findings if finding.level == "warn"]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def alarms(self) -> list[str]:
        """The monitor's rules that raised an alarm."""
        return list_alarms(self.checks)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def alarm_reasons(self) -> list[str]:
        """What each of the monitor's rules said, as lines to print."""
        return [str(check) for check in self.checks]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def numbers(self) -> Scores:
        """The numbers that the monitor judged by, by name."""
        return {name: value for check in self.checks for name, value in check.numbers.items()}

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``taxi run --json`` prints it."""
        return dict(as_json(self))


def result_file(paths: MonthPaths) -> Path:
    """Return where the month's result lies."""
    return paths.reports / "month.json"


def read_result(path: Path) -> MonthResult:
    """Read a month's result; raise TaxiError that names the file if it is damaged, or something else."""
    return read_model(
        path, MonthResult, f"the result of a month, to format {FORMAT},", "Remove it and run the month again"
    )


def write_result(settings: Settings, result: MonthResult) -> None:
    """Keep the month's result beside its pages."""
    write_model(result_file(settings.month(result.service, result.month)), result)


def read_results(report_root: Path, service: str) -> dict[str, MonthResult]:
    """Return the results of the months that were run, done or refused, by month, oldest first."""
    return {path.parent.name: read_result(path) for path in sorted((report_root / service).glob("????-??/month.json"))}


def trained_months(results: dict[str, MonthResult]) -> list[str]:
    """Return the months in which a challenger was trained."""
    return [month for month, result in results.items() if result.trained]


def unpublished_result(service: str, month: str, reason: str) -> MonthResult:
    """Return the result of a month that the publisher does not have."""
    return MonthResult(service=service, month=month, status="not-published", reason=reason)


def refused_result(paths: MonthPaths, reason: str, seconds: dict[str, float], params: Params) -> MonthResult:
    """Return the result of a month that its acceptance rules refused; ``rows`` tell what was counted before that."""
    acceptance = read_acceptance(paths) if paths.acceptance.is_file() else None
    if acceptance and acceptance.status != "refused":  # an unreadable new edition; the earlier one is still on hand
        acceptance = None
    faults = (acceptance and find_faults(acceptance.findings)) or ("unreadable",)
    return MonthResult(
        service=paths.service,
        month=paths.month,
        status="refused",
        reason=reason,
        rows=acceptance.rows if acceptance else NO_ROWS,
        findings=acceptance.findings if acceptance else [],
        synthetic=acceptance.synthetic if acceptance else None,
        reports=[str(paths.reports / "refused.html")],
        seconds=seconds,
        decision=decide_training(Facts(paths.month, (), faults, None), params.retrain),
    )


def month_result(
    settings: Settings,
    plan: "Plan",
    accepted: Acceptance,
    monitor: MonitorResult,
    compare: CompareResult | None,
    versions: dict[str, int],
    decision: TrainingDecision,
) -> MonthResult:
    """Return the result of a month that was run; ``versions`` are the numbers of those that it registered, by role."""
    paths, incumbent = settings.month(plan.service, plan.month), plan.incumbent
    return MonthResult(
        service=plan.service,
        month=plan.month,
        status="done",
        reason=compare.reason if compare else f"no challenger was trained: {decision.reason}",
        rows=accepted.rows,
        findings=[finding for finding in accepted.findings if finding.level == "warn"],
        synthetic=accepted.synthetic,
        champion=JudgedModel(version=incumbent["version"], metrics=monitor.metrics) if incumbent else None,
        challenger=JudgedModel(version=versions["challenger"], metrics=compare.challenger) if compare else None,
        winner=versions.get("winner"),
        trained=decision.train,
        trained_because=decision.reason,
        decision=decision,
        promoted=bool(compare and compare.promote),
        verdict=monitor.verdict,
        checks=monitor.checks,
        window=plan.window,
        reports=[str(page) for name in NOTEBOOKS if (page := paths.reports / f"{name}.html").is_file()],
    )


def finished_month(settings: Settings, service: str, month: str) -> MonthResult | None:
    """Return the kept result if the month was finished from what there is now, publisher's bytes included; else None."""
    from taxi.data.fetch import unchanged  # with what results are made from; `taxi status` reads results alone
    from taxi.runs.steps import month_fingerprint
    from taxi.training.plan import plan_file, read_plan

    paths = settings.month(service, month)
    kept = result_file(paths)
    if not (kept.is_file() and plan_file(paths).is_file() and paths.trips.is_file()):
        return None
    result = read_result(kept)
    if result.status != "done" or not unchanged(settings.source, service, month, paths):
        return None
    plan = read_plan(settings, service, month)
    params = load_params(settings.root / "params.yaml")
    return result if result.fingerprint == month_fingerprint(settings, plan, params) else None


def due_month(settings: Settings, service: str) -> str:
    """Return the month to ask the publisher for: the one after the newest that was run, or that one if it was refused and is replaced.

    Raises UsageError if no month was run yet: then nobody said where to begin.
    """
    from taxi.data.fetch import unchanged

    run = read_results(settings.reports, service)
    if not run:
        raise UsageError(
            f"no {service} month was run yet: begin with `taxi backfill --service {service} --from … --to …`"
        )
    newest = max(run)
    replaced = run[newest].status == "refused" and not unchanged(
        settings.source, service, newest, settings.month(service, newest)
    )
    return newest if replaced else shift_month(newest, 1)

"""A backtest's result as tables: month by month, policy by policy, and what each retraining bought and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from taxi.config import Settings, parse_service
from taxi.errors import TaxiError
from taxi.files import read_model

Json = Mapping[str, Any]
TIMES = ("fit_seconds",)


def result_file(settings: Settings, service: str) -> Path:
    """Return where the result of a service's last backtest lies."""
    return settings.reports / service / "backtest" / "backtest.json"


def read_backtest(settings: Settings, service: str) -> dict[str, Any]:
    """Return the result of the service's last backtest; raise TaxiError that says what to run if there is none."""
    path = result_file(settings, parse_service(service))
    if not path.is_file():
        raise TaxiError(f"no backtest of {service} at {path}: run `taxi backtest --service {service} --from … --to …`")
    return load_backtest(path)


def load_backtest(path: Path) -> dict[str, Any]:
    """Read a backtest's result; raise TaxiError that names it if it is damaged."""
    return read_model(path, dict[str, Any], "what a backtest found", "Remove it and run `taxi backtest` again")


def _found(result: Json, severity: str) -> str:
    return ", ".join(one["rule"] for one in result["findings"] if one["severity"] == severity)


def to_row(result: Json) -> dict[str, Any]:
    """Return one month under one policy as a flat row; scores are the champion's, in minutes and shares of 1."""
    champion, decision = result["champion"] or {}, result["decision"]
    scores = champion.get("metrics") or {}
    return {
        "service": result["service"],
        "policy": result["policy"],
        "month": result["month"],
        "trips": result["trips"],
        "compared_with": result["compared_with"],
        "champion": champion.get("version"),
        "trained_to": result["trained_to"],
        "age": result["age"],
        "rmse": scores.get("rmse"),
        "mae": scores.get("mae"),
        "coverage80": scores.get("coverage80"),
        "verdict": result["verdict"],
        "alarms": ", ".join(result["alarms"]),
        **{f"{severity}s": _found(result, severity) for severity in ("error", "warning")},
        "trigger": decision["trigger"],
        "why": decision["reason"],
        "trained": result["trained"],
        "promoted": result["promoted"],
        "winner": result["winner"],
        "gain": result["gain"],
        "reason": result["reason"],
        "fits": result["fits"],
        "fitted_trips": result["fitted_trips"],
        "fit_seconds": result["fit_seconds"],
    }


def to_table(months: Sequence[Json]) -> pd.DataFrame:
    """Return the rows of all months and policies, in the order in which they were played."""
    whole = dict.fromkeys(("champion", "age", "winner"), "Int64")
    return pd.DataFrame([to_row(one) for one in months]).astype(whole)


def judged_months(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of months in which every policy had a champion: the only ones that policies compare by."""
    scored = table[table["rmse"].notna()]
    everyone = scored.groupby("month")["policy"].nunique() == table["policy"].nunique()
    return scored[scored["month"].map(everyone)]


def _count(listed: str) -> int:
    return len(listed.split(", ")) if listed else 0


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a policy: means over ``judged_months``, each month counting once, and counts over all months."""
    judged = judged_months(table).groupby("policy", sort=False)
    means = judged[["rmse", "mae", "coverage80"]].mean().assign(months=judged.size())
    counted = table.assign(**{name: table[name].map(_count) for name in ("errors", "warnings")})
    columns = ["trained", "promoted", "errors", "warnings", "fits", "fitted_trips", "fit_seconds"]
    sums = counted.groupby("policy", sort=False)[columns].sum()
    told = {"trained": "retrains", "promoted": "promotions", "errors": "errors", "warnings": "warnings"}
    whole = [name for name in sums.columns if name not in TIMES]
    return (
        sums.astype(dict.fromkeys(whole, int))
        .rename(columns=told)
        .join(means)[["months", "rmse", "mae", "coverage80", *told.values(), "fits", "fitted_trips", "fit_seconds"]]
    )


def hold_against(summary: pd.DataFrame, policy: str, other: str) -> str | None:
    """Say what a policy costs in error and saves in retrainings, against another; None unless both were played."""
    if not {policy, other} <= set(summary.index):
        return None
    one, two = summary.loc[policy], summary.loc[other]
    error = ", ".join(f"{one[name] / two[name] - 1:+.2%} {name.upper()}" for name in ("mae", "rmse"))
    return (
        f"`{policy}` against `{other}`, over {one['months']:.0f} months: {error}; "
        f"{one['retrains']:.0f} retrainings against {two['retrains']:.0f}."
    )


def worst_month(table: pd.DataFrame, policy: str, other: str) -> str | None:
    """Say in which month a policy's MAE was furthest above another's; None unless both were played."""
    by_policy = judged_months(table).pivot(index="month", columns="policy", values="mae")
    if not {policy, other} <= set(by_policy.columns) or by_policy.empty:
        return None
    ratio = by_policy[policy] / by_policy[other] - 1
    return f"`{policy}` was furthest behind `{other}` in {ratio.idxmax()}: {ratio.max():+.1%} MAE."


def served_by(table: pd.DataFrame, policy: str) -> pd.DataFrame:
    """Return one row for each retraining of a policy: why, what the gate said, what it cost, and what it bought.

    ``bought`` is by how many minutes a trip the policy's MAE lay below ``never``'s in the months that the new champion served
    (empty without ``never``, without promotion, and where it served no month).
    """
    own = table[table["policy"] == policy].set_index("month")
    rest = table[table["policy"] == "never"].set_index("month")["mae"].reindex(own.index)
    rows = []
    for month, one in own[own["trained"]].iterrows():
        served = own.index[own["champion"].eq(one["winner"]).fillna(False)] if one["promoted"] else own.index[:0]
        rows.append(
            {
                "policy": policy,
                "month": month,
                "trigger": one["trigger"],
                "promoted": one["promoted"],
                "RMSE lower by": one["gain"],
                "months served": len(served),
                "bought": (rest - own["mae"])[served].mean(),
                "fits": one["fits"],
                "fitted trips": one["fitted_trips"],
                "seconds": one["fit_seconds"],
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Standings:
    """Everything that the backtest's notebook shows; without ``seconds`` nothing in it depends on the machine."""

    played: Json
    seconds: bool = True

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a month and policy."""
        return self._timed(to_table(self.played["months"]))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a policy."""
        return self._timed(summarise(to_table(self.played["months"])))

    @cached_property
    def retrainings(self) -> pd.DataFrame:
        """One row for each retraining."""
        tables = [served_by(to_table(self.played["months"]), policy) for policy in self.played["policies"]]
        return self._timed(pd.concat(tables, ignore_index=True))

    @cached_property
    def events(self) -> pd.DataFrame:
        """The months with an alarm or a promotion, with the decision and its reason."""
        seen = (self.table["errors"] != "") | (self.table["alarms"] != "") | self.table["promoted"]
        columns = ["month", "policy", "errors", "alarms", "trigger", "promoted", "reason"]
        return self.table[seen][columns].sort_values(["month", "policy"], kind="stable", ignore_index=True)

    def by_month(self, column: str) -> pd.DataFrame:
        """Return one column of the table by month and policy."""
        return self.table.pivot(index="month", columns="policy", values=column)[self.played["policies"]]

    def _timed(self, table: pd.DataFrame) -> pd.DataFrame:
        return table if self.seconds else table.drop(columns=[*TIMES, "seconds"], errors="ignore")

    @cached_property
    def answers(self) -> list[str]:
        """What the backtest says, in sentences with numbers."""
        pairs = [("auto", "always"), ("never", "always"), ("auto", "never")]
        said = [hold_against(self.summary, *pair) for pair in pairs]
        return [one for one in [*said, worst_month(self.table, "never", "always")] if one]

    @cached_property
    def note(self) -> str:
        """What was played, and which months were not."""
        played = self.played
        count = len({one["month"] for one in played["months"]})
        lines = [f"**{played['service']}, {played['from']} to {played['to']}**: {count} months by each policy."]
        if played["missing"]:
            lines.append(f"Not on hand, so not played: {', '.join(played['missing'])}.")
        lines += [f"Refused, so not played: {month}: {why}" for month, why in played["refused"].items()]
        gaps = {one["month"]: one["gap"] for one in played["months"] if one["gap"]}
        lines += [f"{month} is {gap}." for month, gap in gaps.items()]
        if played["overrides"]:
            given = ", ".join(f"{name} = {value}" for name, value in sorted(played["overrides"].items()))
            lines.append(f"Not by `params.yaml`: {given}.")
        if any(one["synthetic"] for one in played["months"]):
            lines.append("> **Synthetic trips.**")
        return "\n\n".join(lines)

    @cached_property
    def result(self) -> dict[str, Any]:
        """What the notebook records."""
        rounded = self.summary.reset_index().to_dict("records")
        return {"summary": rounded, "answers": self.answers, "missing": self.played["missing"]}

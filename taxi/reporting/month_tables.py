"""Exploration tables and sentences: what came, what was refused, how the month looks beside others."""

from pathlib import Path

import pandas as pd

from taxi.config import MonthPaths, Settings
from taxi.data.acceptance import Acceptance, read_acceptance
from taxi.data.schema import SYNTHETIC_NOTE, read_kept_rows
from taxi.data.zones import read_zones
from taxi.months import shift_month

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def source_note(accepted: Acceptance) -> str:
    """Say which month this is and, as loudly as it deserves, whether the trips are synthetic."""
    note = f"**{accepted.service} {accepted.month}**: {accepted.status}. sha256 of the published bytes: `{accepted.raw_sha256}`."
    synthetic = f"\n\n> **Synthetic trips.** {SYNTHETIC_NOTE}"
    return note + (synthetic if accepted.synthetic else "")


def count_table(accepted: Acceptance) -> pd.DataFrame:
    """Return rows kept, refused by reason, and all; rows and share of what was published."""
    rows = accepted.rows
    counts = {"kept": rows["kept"], **rows["reasons"], "published": rows["raw"]}
    table = pd.DataFrame({"rows": pd.Series(counts)})
    return table.assign(share=(table["rows"] / max(rows["raw"], 1)).map("{:.2%}".format))


def finding_table(accepted: Acceptance) -> pd.DataFrame:
    """Return the month rules' findings, gravest first."""
    table = pd.DataFrame(
        [(f.rule, f.level, f.message) for f in accepted.findings], columns=["rule", "level", "message"]
    )
    grave = table["level"].map({"refuse": 0, "warn": 1, "ok": 2})
    return table.iloc[grave.argsort(kind="stable")].set_index("rule")


def finding_html(accepted: Acceptance) -> str:
    """Return ``finding_table`` as HTML with its messages in full."""
    with pd.option_context("display.max_colwidth", None):
        return str(finding_table(accepted).reset_index().to_html(classes="text", index=False, border=0))


def refused_examples(paths: MonthPaths, each: int) -> pd.DataFrame:
    """Return the first ``each`` refused rows of every reason, as published, times and distance only."""
    table = read_kept_rows(paths.quarantine)
    times = [name for name in table.column_names if name.endswith("datetime")]
    shown = ["reason", "row", "VendorID", *times, "PULocationID", "DOLocationID", "trip_distance", "total_amount"]
    frame = table.select([name for name in shown if name in table.column_names]).to_pandas()
    return frame.groupby("reason").head(each).sort_values(["reason", "row"]).set_index("reason")


def quantile_table(trips: pd.DataFrame) -> pd.DataFrame:
    """Return quantiles of duration (minutes) and distance (miles), with and without the null block."""
    parts = {"all trips": trips, "null block": trips[trips["null_block"]], "other trips": trips[~trips["null_block"]]}
    rows = {
        f"{name}, {unit}": part[column].quantile(list(QUANTILES))
        for name, part in parts.items()
        for column, unit in (("duration", "minutes"), ("trip_distance", "miles"))
    }
    return pd.DataFrame(rows).T.round(2).rename(columns=lambda share: f"P{share * 100:.0f}")


def speed_by_zone(trips: pd.DataFrame, least: int = 20) -> pd.Series:
    """Return the median speed (miles per hour) by pickup zone, where at least ``least`` trips have a sound distance."""
    sound = trips[~trips["distance_suspect"]]
    speed = (sound["trip_distance"] / sound["duration"] * 60).groupby(sound["PULocationID"])
    return speed.median()[speed.size() >= least].rename("miles per hour")


def fastest_and_slowest(speed: pd.Series, zones: Path) -> pd.DataFrame:
    """Return the three slowest and the three fastest zones by name."""
    table = read_zones(zones)[["borough", "zone"]].join(speed, how="inner").sort_values("miles per hour")
    return pd.concat([table.head(3), table.tail(3)]).round({"miles per hour": 1})


def months_beside(settings: Settings, service: str, month: str, before: int) -> pd.DataFrame:
    """Return one row a month on hand: raw, kept, kept share, median minutes and miles, share of the null block."""
    rows = {}
    for back in range(before, -1, -1):
        paths = settings.month(service, shift_month(month, -back))
        if paths.acceptance.is_file() and (figures := read_acceptance(paths).figures):
            rows[paths.month] = {
                "raw": figures["raw"],
                "kept": figures["kept"],
                "kept share": round(figures["kept_share"], 4),
                "median minutes": round(figures["median_minutes"], 2),
                "median miles": round(figures["median_miles"], 2),
                "null block": round(figures["null_share"], 4),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("month")


def month_answers(accepted: Acceptance, beside: pd.DataFrame) -> list[str]:
    """Return the month in a few sentences with numbers."""
    rows, now = accepted.rows, beside.iloc[-1]
    most = max(rows["reasons"], key=rows["reasons"].__getitem__, default="none")
    answers = [
        f"{rows['raw']:,} rows were published; {rows['kept']:,} are kept and {rows['quarantined']:,} are in quarantine, most as `{most}`.",
        f"The month is {accepted.status}, with {len(accepted.warnings)} warnings.",
        *accepted.warnings,
    ]
    if len(beside) > 1:
        usual = beside.iloc[:-1].median()
        answers.append(
            f"Against the median of {len(beside) - 1} months before: kept trips {now['kept'] / usual['kept'] - 1:+.1%}, "
            f"median duration {now['median minutes'] / usual['median minutes'] - 1:+.1%}, null block {now['null block'] - usual['null block']:+.1%}."
        )
    return answers

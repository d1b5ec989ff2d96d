import re
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from taxi.config import MonthPaths
from taxi.data.acceptance import Acceptance, apply_month_rules, clean_month, decide, read_acceptance, read_history
from taxi.data.month_rules import RuleFinding, missing_days, row_count, volume_jump
from taxi.data.schema import read_trips
from taxi.errors import MonthRefused
from taxi.files import sha256_file
from taxi.params import load_params
from taxi.reporting.month_tables import refused_examples

PARAMS = load_params()
ACCEPT = PARAMS.accept


@pytest.fixture
def month(tmp_path, make_published):
    def put(month="2023-03", change=lambda frame: frame, service="green", metadata=None, n=6000):
        paths = MonthPaths(tmp_path, tmp_path / "reports", service, month)
        paths.raw.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pandas(change(make_published(service, month, n)), preserve_index=False)
        parquet.write_table(table.replace_schema_metadata(metadata), paths.raw)
        return paths

    return put


def spoil(frame):
    return frame.assign(PULocationID=0)


def void_some(frame):
    return frame.assign(total_amount=frame["total_amount"].where(frame.index % 50 != 0, -1.0), extra="as published")


def test_kept_and_quarantined_add_up_to_what_was_published(month):
    paths = month(change=void_some)

    rows = clean_month(paths, PARAMS).rows

    assert rows["raw"] == 6000 == rows["kept"] + rows["quarantined"]
    assert rows["quarantined"] == sum(rows["reasons"].values()) >= 120
    assert len(read_trips(paths.trips)) == rows["kept"]


def test_quarantined_rows_stay_whole_with_their_number_and_reason(month):
    paths = month(change=void_some)
    clean_month(paths, PARAMS)

    raw, refused = parquet.read_table(paths.raw), parquet.read_table(paths.quarantine)

    assert refused.column_names == [*raw.column_names, "row", "reason"]
    assert refused.drop_columns(["row", "reason"]).equals(raw.take(refused["row"]))
    assert refused["reason"].to_pylist().count("void") == 120


@pytest.mark.parametrize(
    "more", [["reason", "row"], ["row", "published_row"], ["tip_amount"], ["Reason", "tip_amount", "tip_amount"]]
)
def test_published_columns_named_as_ours_or_there_twice_leave_the_quarantine_readable(month, more):
    paths = month(change=void_some)
    table = parquet.read_table(paths.raw)
    for name in more:
        table = table.append_column(name, pa.array(["theirs"] * table.num_rows))
    notes = {"pandas": '{"index_columns": ["VendorID"], "columns": []}', "taxi": "kept"}
    parquet.write_table(table.replace_schema_metadata(notes), paths.raw)

    clean_month(paths, PARAMS)

    names = parquet.read_schema(paths.quarantine).names
    assert len(names) == len(set(names)) == table.num_columns + 2
    refused = pd.read_parquet(paths.quarantine)
    assert (refused["reason"] == "void").sum() == 120
    assert [*refused["row"]] == sorted(refused["row"])
    assert (refused[names[-2 - len(more) : -2]] == "theirs").all(axis=None)
    assert len(refused_examples(paths, 2)) >= 2


def test_a_column_whose_name_is_no_text_refuses_the_month(month):
    paths = month()
    paths.raw.write_bytes(paths.raw.read_bytes().replace(b"RatecodeID", b"Rate\xbaodeID"))

    with pytest.raises(MonthRefused, match="expected a whole Parquet file"):
        clean_month(paths, PARAMS)


@pytest.mark.parametrize("mark", ['{"seed": ', "[" * 100_000, "7"])
def test_a_mark_of_synthetic_trips_that_cannot_be_read_refuses_the_month(month, mark):
    paths = month(metadata={"taxi.synthetic": mark})

    with pytest.raises(MonthRefused, match="expected how it was made as JSON"):
        clean_month(paths, PARAMS)


@pytest.mark.parametrize("service", ["green", "yellow"])
def test_a_good_month_is_accepted_and_its_summary_kept(month, service):
    paths = month(service=service)

    summary = clean_month(paths, PARAMS)

    assert summary.status == "accepted"
    assert summary == read_acceptance(paths)
    assert summary.raw_sha256 == sha256_file(paths.raw)


def test_cleaning_again_makes_the_same_bytes(month):
    paths = month(change=void_some)
    made = [paths.trips, paths.quarantine, paths.acceptance]
    clean_month(paths, PARAMS)
    first = [sha256_file(path) for path in made]

    clean_month(paths, PARAMS)

    assert [sha256_file(path) for path in made] == first


def test_a_refused_month_leaves_its_evidence_and_no_trips(month):
    paths = month()
    clean_month(paths, PARAMS)
    month(change=spoil)

    with pytest.raises(MonthRefused, match="share-unknown-zone"):
        clean_month(paths, PARAMS)

    assert not paths.trips.exists()
    assert read_acceptance(paths).status == "refused"
    assert parquet.read_metadata(paths.quarantine).num_rows == 6000


def test_an_unreadable_file_leaves_its_rule_as_evidence_and_no_trips(month):
    paths = month()
    clean_month(paths, PARAMS)
    paths.raw.write_bytes(b"<html>")

    with pytest.raises(MonthRefused, match="not-parquet"):
        clean_month(paths, PARAMS)

    assert [finding.rule for finding in read_acceptance(paths).findings] == ["not-parquet"]
    assert not paths.trips.exists()
    assert not paths.quarantine.exists()


def test_a_new_column_is_tolerated_and_named(month):
    clean_month(month("2023-02"), PARAMS)

    summary = clean_month(month(change=lambda frame: frame.assign(cbd_congestion_fee=0.75)), PARAMS)

    assert summary.status == "warned"
    assert any("cbd_congestion_fee" in line for line in summary.warnings)


def test_the_case_of_a_column_is_no_change(month):
    clean_month(month("2023-02", lambda frame: frame.assign(Airport_fee=0.0)), PARAMS)

    assert clean_month(month(change=lambda frame: frame.assign(airport_fee=0.0)), PARAMS).warnings == []


def test_refused_and_synthetic_months_are_no_history_of_a_real_one(month):
    clean_month(month("2023-01"), PARAMS)
    clean_month(month("2022-12", metadata={"taxi.synthetic": '{"seed": 7}'}), PARAMS)
    with pytest.raises(MonthRefused):
        clean_month(month("2023-02", spoil), PARAMS)

    history = read_history(month(), 3, synthetic=False)

    assert [one["adjoins"] for one in history] == [False]


def test_a_synthetic_month_says_so_in_its_summary(month):
    assert clean_month(month(metadata={"taxi.synthetic": '{"seed": 7}'}), PARAMS).synthetic == {"seed": 7}


def figures(**values):
    return {"raw": 3000, "by_day": [100] * 30, "adjoins": True} | values


def test_the_spring_of_2020_is_a_warning_not_a_refusal():
    march, april = figures(raw=223_496, by_day=[9000] * 15 + [1300] * 15), figures(raw=35_644, by_day=[1200] * 30)

    assert row_count(april, [march], ACCEPT).level == "warn"
    assert volume_jump(april, [march], ACCEPT).level == "ok"


def test_days_that_were_missing_last_month_are_not_taken_for_less_demand():
    before = figures(by_day=[100] * 26 + [0] * 4)

    assert volume_jump(figures(), [before], ACCEPT).level == "ok"


def test_half_the_rows_are_missed_even_where_a_holiday_makes_the_week_before_a_quiet_one():
    before, lost = figures(by_day=[100] * 23 + [80] * 7), figures(raw=1500, by_day=[50] * 30)

    assert volume_jump(lost, [before], ACCEPT).level == "refuse"
    assert volume_jump(figures(raw=2500, by_day=[50] * 30), [before], ACCEPT).level == "warn"


@pytest.mark.parametrize(("lost", "level"), [(0, "ok"), (1, "warn"), (5, "refuse")])
def test_days_without_a_trip_are_counted(lost, level):
    assert missing_days(figures(by_day=[0] * lost + [100] * (30 - lost)), [], ACCEPT).level == level


def test_no_rows_are_refused_and_judged_no_further():
    findings = apply_month_rules(figures(raw=0), [], ACCEPT)

    assert [(one.rule, one.level) for one in findings] == [("row-count", "refuse")]


@pytest.mark.parametrize(
    ("levels", "status"), [([], "accepted"), (["ok", "warn"], "warned"), (["warn", "refuse", "ok"], "refused")]
)
def test_the_gravest_finding_decides(levels, status):
    assert decide([RuleFinding("some-rule", level, "came") for level in levels]) == status


def clean_real(path, data) -> Acceptance:
    service, month = re.match(r"(\w+)_tripdata_(.*)", path.stem).groups()
    paths = MonthPaths(data, data / "reports", service, month)
    paths.raw.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, paths.raw)
    return clean_month(paths, PARAMS)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("alone", [False, True], ids=["after the months before it", "alone"])
def test_no_real_month_is_refused(real_source, tmp_path, alone):
    months = sorted((real_source / "trip-data").glob("*.parquet"))

    kept = {one.stem: clean_real(one, tmp_path / one.stem if alone else tmp_path).rows for one in months}

    share = pd.Series({name: rows["kept"] / rows["raw"] for name, rows in kept.items()})
    assert len(share) == 52
    assert share.between(0.93, 0.99).all()

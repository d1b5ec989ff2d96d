"""A month's result is written once, versioned; that of the commit before is read, and a damaged file is explained."""

import json
from pathlib import Path

import pytest

from taxi.config import Settings
from taxi.errors import TaxiError
from taxi.files import read_json, write_json
from taxi.runs.month_result import MonthResult, read_result, read_results, trained_months, write_result
from tests.support.month_results import make_result

# As the commit before wrote it: no format, checks and warnings as lines of text.
BEFORE = {
    "alarm_reasons": [
        "volume: 248 trips a day, -43.4% against the 257 of the months before (limits -30%, +60%)",
        "rmse: RMSE 5.13 minutes, +1.9% against the 5.03 it was promoted with (limit +10%)",
        "slice-rmse: the slice that fell behind most is 'hours: 20-24': RMSE +9.3% against the others (limit +25%)",
    ],
    "alarms": ["volume"],
    "challenger": None,
    "champion": {"metrics": {"coverage80": 0.801014, "mae": 3.495081, "n": 7689, "rmse": 5.126204}, "version": 2},
    "decision": {
        "facts": {
            "alarms": ["volume"],
            "incumbent": {"trained_from": "2024-01", "trained_to": "2024-01", "version": 2},
            "last_trained": "2024-01",
            "month": "2024-03",
            "quality": ["share-void"],
        },
        "reason": "the month's records are in doubt (share-void), and nothing is learnt from them",
        "retrain": {"every_months": 0, "oldest_months": 3, "on_alarm": ["rmse", "coverage"], "policy": "auto"},
        "train": False,
        "trigger": "held",
    },
    "edition": "new",
    "fingerprint": "dc1f27039669a256edfeb394a572131d38296de63379e0372f40f1c64cff69c8",
    "month": "2024-03",
    "numbers": {"null_share": -0.00013, "rmse_ratio": 1.019352, "volume": -0.433819},
    "promoted": False,
    "reason": "no challenger was trained: the month's records are in doubt",
    "reports": ["reports/green/2024-03/01-explore.html", "reports/green/2024-03/03-monitor.html"],
    "rows": {"kept": 7689, "quarantined": 328, "raw": 8017, "reasons": {"too-long": 124, "too-short": 204}},
    "seconds": {"clean": 0.59, "fetch": 0.13},
    "service": "green",
    "status": "done",
    "synthetic": None,
    "trained": False,
    "trained_because": "the month's records are in doubt",
    "verdict": "alarm",
    "warnings": ["share-void: 7.1% of rows are void: expected under 5%"],
    "window": ["2024-01", "2024-02"],
    "winner": None,
}
BEFORE_REFUSED = {
    "service": "green",
    "month": "2024-04",
    "status": "refused",
    "rows": {"raw": 5, "kept": 4, "quarantined": 1, "reasons": {"void": 1}},
    "champion": None,
    "challenger": None,
    "promoted": False,
    "reason": "green 2024-04 is refused. quiet-hours: the quietest three hours begin at 9:00; expected 1:00 to 5:00",
    "verdict": None,
    "alarms": [],
    "findings": [
        {
            "rule": "quiet-hours",
            "level": "refuse",
            "expected": "1:00 to 5:00",
            "got": "the quietest three hours begin at 9:00",
            "message": "the quietest three hours begin at 9:00; expected 1:00 to 5:00",
        }
    ],
    "synthetic": None,
    "reports": ["reports/green/2024-04/refused.html"],
    "seconds": {"fetch": 0.1},
    "decision": None,
}


def put(place: Path, content: dict) -> Path:
    write_json(place / "month.json", content)
    return place / "month.json"


def test_a_result_of_the_commit_before_is_read_with_all_that_it_said(tmp_path):
    result = read_result(put(tmp_path, BEFORE))

    assert [(check.rule, check.severity) for check in result.checks] == [
        ("volume", "warning"),
        ("rmse", "info"),
        ("slice-rmse", "info"),
    ]
    assert [check.numbers for check in result.checks] == [{"volume": -0.433819}, {"rmse_ratio": 1.019352}, {}]
    assert result.checks[2].sentence.startswith("the slice that fell behind most is 'hours: 20-24': RMSE")
    assert [(one.rule, one.message) for one in result.findings] == [
        ("share-void", "7.1% of rows are void: expected under 5%")
    ]
    printed = result.as_json()
    same = set(BEFORE) - {"numbers"}  # the null block's number had no check beside it here
    assert {name: printed[name] for name in same} == {name: BEFORE[name] for name in same}


def test_a_refused_result_of_the_commit_before_keeps_its_findings(tmp_path):
    result = read_result(put(tmp_path, BEFORE_REFUSED))

    assert result.findings[0].message == BEFORE_REFUSED["findings"][0]["message"]
    assert {name: result.as_json()[name] for name in BEFORE_REFUSED} == BEFORE_REFUSED


def test_a_result_that_is_written_is_read_the_same(tmp_path):
    settings = Settings(tmp_path, "", tmp_path / "data", tmp_path / "reports", "")
    made = make_result(alarms=["rmse"], warnings=["row-count: fewer: by half"], trained=True)

    write_result(settings, made)

    results = read_results(settings.reports, "green")
    assert results == {"2023-03": made}
    assert read_json(tmp_path / "reports/green/2023-03/month.json")["format"] == 2
    assert trained_months(results) == ["2023-03"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(BEFORE)[:700], "EOF"),
        ("", "EOF"),
        ('{"months": []}', "service: Field required; month: Field required; status: Field required; and 1 more"),
        ("[1, 2]", "as a whole"),
        (json.dumps(BEFORE | {"format": 3}), "format: Input should be 2"),
        (json.dumps(BEFORE | {"rows": {"raw": 1}}), "rows.kept: Field required"),
        ("\x00\xff", "Invalid JSON"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_error_that_names_it(tmp_path, text, said):
    path = tmp_path / "reports" / "green" / "2024-03" / "month.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="latin-1")

    with pytest.raises(TaxiError) as caught:
        read_results(tmp_path / "reports", "green")

    assert str(caught.value).startswith(f"expected the result of a month, to format 2, as JSON at {path}; ")
    assert said in str(caught.value)
    assert str(caught.value).endswith("Remove it and run the month again")


def test_what_is_printed_has_the_keys_that_scripts_read():
    printed = MonthResult(service="green", month="2024-03", status="not-published", reason="not there").as_json()

    contract = {"service", "month", "status", "rows", "champion", "challenger", "promoted", "reason", "verdict"}
    assert contract | {"alarms", "reports", "seconds", "warnings", "alarm_reasons", "numbers"} <= set(printed)
    assert printed["rows"] == {"raw": 0, "kept": 0, "quarantined": 0, "reasons": {}}

"""Months that are finished already: decided once, published again."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines import finished
from taxi.config import Settings
from tests.support.month_results import make_result


def test_whether_a_month_is_finished_is_decided_once_and_nothing_is_published_before_all_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(tmp_path, "none", tmp_path / "data", tmp_path / "reports", "none")
    asked, published, unfinished = Counter(), Counter(), {"2024-03"}

    def decide(settings: Settings, service: str, month: str) -> object:
        asked[month] += 1
        return None if month in unfinished else make_result(month=month)

    monkeypatch.setattr(finished, "finished_month", decide)
    monkeypatch.setattr(finished, "prepare_process", lambda settings: None)
    monkeypatch.setattr(finished, "publish_files", lambda settings, service, month, version: published.update([month]))
    monkeypatch.setattr(finished, "watch", lambda *which: {"told": [], "channels": [], "failed": None})

    assert finished.publish_finished(settings, "green", ["2024-01", "2024-03"], False) is None
    assert (asked, published) == (Counter(["2024-01", "2024-03"]), Counter())

    results = finished.publish_finished(settings, "green", ["2024-01", "2024-02"], False)
    assert results and [result["month"] for result in results] == ["2024-01", "2024-02"]
    assert asked == Counter({"2024-01": 2, "2024-02": 1, "2024-03": 1})
    assert published == Counter(["2024-01", "2024-02"])

"""Skipped tests are counted aloud, and fail where ``CI`` is set unless they are on the list."""

from collections import Counter

from tests.support.skips import describe, forbidden_in_ci


def test_ci_goes_without_what_it_cannot_have_and_without_nothing_else() -> None:
    reasons = Counter(
        {"the publisher's real months are not in ../x": 10, "chromium is not installed": 2, "too tired": 1}
    )

    assert forbidden_in_ci(reasons) == ["chromium is not installed", "too tired"]


def test_a_line_says_what_was_skipped_and_how_to_have_it() -> None:
    assert describe(Counter({"chromium is not installed": 2})) == (
        "2 skipped: chromium is not installed (apt-get install chromium)"
    )

from pathlib import Path

import pytest

from tests.support.catalogue import MUTATIONS, Mutation
from tests.support.changes import MONTH
from tests.support.mutations import document, is_caught, judge, mutate

pytestmark = pytest.mark.slow


def test_the_month_itself_is_accepted_without_a_warning(data_with_history, made_months):
    outcome = judge(mutate(Mutation("none", ""), made_months[MONTH])[0], data_with_history)

    assert outcome.summary.status == "accepted"
    assert outcome.summary.rows["quarantined"] <= 2


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_a_month_that_is_wrong_is_refused_or_quarantined_by_the_rule_that_names_it(
    mutation, data_with_history, made_months
):
    raw, touched = mutate(mutation, made_months[MONTH])

    outcome = judge(raw, data_with_history)

    assert touched.any() or not len(touched)
    assert is_caught(mutation, outcome, touched), outcome.summary.findings
    assert (outcome.summary.status == "refused") == (mutation.rows is None)


def test_the_catalogue_has_at_least_fifty_different_mutations():
    assert len({one.name for one in MUTATIONS}) == len(MUTATIONS) >= 50


@pytest.mark.real
def test_the_documented_table_is_what_the_rules_do_to_a_real_month(real_source):
    made = document(real_source)

    assert "not caught" not in made
    assert made == (Path(__file__).parents[2] / "docs/acceptance.md").read_text(encoding="utf-8")

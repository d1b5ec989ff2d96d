"""Each environment has its gate, and a closed gate says what is not met."""

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from taxi.errors import Refused, UsageError
from taxi.params import Params
from taxi.registry.mlflow_client import connect
from taxi.registry.release import Condition, environment_before, open_gate, promote
from taxi.registry.versions import Version, aliased_version, find_version, model_name, versions
from tests.support.aliased import PARAMS, aliases, register

TAGS = {"role": "winner", "synthetic": "false", "git_commit": "abc", "git_dirty": "false"}
GOOD = {"coverage80": 0.8}


def make_version(number: int = 4, trained_to: str = "2023-03", environment: str = "dev", **tags: str) -> Version:
    source = tags.pop("source", "s3://nowhere")
    return Version("green", number, "2022-04", trained_to, trained_to, GOOD, TAGS | tags, source, "run", environment)


def make_params(**release: object) -> Params:
    return PARAMS.model_copy(update={"release": PARAMS.release.model_copy(update=release)})


def closed(checks: list[Condition]) -> list[str]:
    return [check.name for check in checks if not check.met]


def gate(
    one: Version, target: str = "staging", there=(), params: Params = PARAMS, champion=None, **faults
) -> list[Condition]:
    return open_gate(one, target, champion or one, list(there), params, faults)


@pytest.mark.parametrize("target", ["staging", "prod"])
def test_a_good_champion_enters(target):
    assert closed(gate(make_version(environment=environment_before(target)), target, model=None)) == []


def test_only_the_champion_of_the_environment_before_enters():
    checks = gate(make_version(3), champion=make_version(4))

    assert closed(checks) == ["champion"]
    assert checks[0].reason == "green/4 is the champion of dev"


@pytest.mark.parametrize("coverage", [0.71, 0.89, None])
def test_an_interval_that_did_not_hold_stays_out(coverage):
    one = make_version()
    odd = Version(**{**vars(one), "metrics": {} if coverage is None else {"coverage80": coverage}})

    assert closed(gate(odd)) == ["coverage"]


def test_what_is_in_already_is_not_copied_again():
    copy = make_version(1, environment="staging", source="models:/taxi-green/4", rolled_back="bad")

    checks = gate(make_version(4), there=[copy])

    assert closed(checks) == ["newer"]
    assert "green/4 is in staging already, as green/1 in staging" in checks[1].reason


def test_an_older_model_does_not_replace_a_newer_one():
    checks = gate(make_version(4), there=[make_version(1, "2023-05", "staging")])

    assert closed(checks) == ["newer"]
    assert "was trained to 2023-05, green/4 to 2023-03: roll staging back first" in checks[1].reason


def test_a_fault_that_recomputing_found_closes_the_gate_and_is_its_reason():
    checks = gate(make_version(), model="'mean.ubj' has sha256 …")

    assert closed(checks) == ["model"]


@pytest.mark.parametrize("tags", [{"synthetic": "true"}, {"git_dirty": "true"}, {"git_commit": "none"}])
def test_prod_asks_where_a_model_is_from_and_staging_does_not(tags):
    assert closed(gate(make_version(environment="staging", **tags), "prod")) == ["origin"]
    assert closed(gate(make_version(**tags), "staging")) == []
    let = make_params(synthetic=True, uncommitted=True)
    assert closed(gate(make_version(environment="staging", **tags), "prod", params=let)) == []


def test_a_person_must_approve_where_params_ask_for_it():
    asking = make_params(approval=["prod"])
    one = make_version(environment="staging")

    assert closed(gate(one, "prod", params=asking)) == ["approval"]
    assert closed(gate(make_version(), "staging", params=asking)) == []

    reports = json.dumps({"05-compare.html": "ab", "01-explore.html": "cd"})
    for note, missing in (
        ('{"by": "ada", "report": "05-compare.html", "sha256": "ab"}', []),
        ('{"by": "ada", "report": "01-explore.html", "sha256": "cd"}', ["approval"]),
        ('{"by": "ada", "report": "05-compare.html", "sha256": "ef"}', ["approval"]),
        ("ada", ["approval"]),
        ("7", ["approval"]),
    ):
        approved = make_version(environment="staging", reports=reports, **{"approved.prod": note})
        assert closed(gate(approved, "prod", params=asking)) == missing


@pytest.mark.parametrize("target", ["dev", "production", ""])
def test_there_are_two_environments_to_promote_to(target):
    with pytest.raises(UsageError, match="one of staging, prod"):
        environment_before(target)


def test_the_names_of_the_environments_models():
    assert [model_name("green", one) for one in ("dev", "staging", "prod")] == [
        "taxi-green", "taxi-green-staging", "taxi-green-prod",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_champion_goes_from_dev_over_staging_to_prod(uri):
    staged, _ = promote(uri, find_version(uri, "green/champion"), "staging", PARAMS, {}, "ada")
    live, checks = promote(uri, staged, "prod", PARAMS, {}, "bob")

    assert (staged.label, live.label) == ("green/1 in staging", "green/1 in prod")
    assert aliased_version(uri, "green", "champion", "prod").number == 1
    assert (live.tags["released_from"], live.tags["released_by"]) == ("green/1 in staging", "bob")
    assert aliases(uri) == {"champion": 3, "challenger": 4}
    assert all(check.met for check in checks)


def test_a_closed_gate_refuses_and_copies_nothing(uri):
    with pytest.raises(Refused, match="green/2 does not enter staging: champion: green/3 is the champion of dev"):
        promote(uri, find_version(uri, "green/2"), "staging", PARAMS, {}, "ada")

    assert versions(uri, "green", "staging") == []


def test_a_version_does_not_skip_an_environment(uri):
    with pytest.raises(UsageError, match="expected a version of staging; got green/3"):
        promote(uri, find_version(uri, "green/3"), "prod", PARAMS, {}, "ada")


@pytest.fixture
def command(uri, tmp_path, monkeypatch):
    """Run the command line on the registry with three champions."""
    monkeypatch.setenv("TAXI_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TAXI_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    def run(*words: str):
        return CliRunner().invoke(app, list(words))

    return run


def test_one_command_rolls_back(command, uri):
    done = command("rollback", "--service", "green", "--reason", "bad at night", "--by", "ada", "--json")

    said = {"service": "green", "environment": "dev", "from": 3, "to": 2, "reason": "bad at night", "by": "ada"}
    assert (done.exit_code, json.loads(done.stdout)) == (0, said)
    assert aliases(uri)["champion"] == 2


def test_rollback_says_in_words_what_it_did(command):
    done = command("rollback", "--service", "green")

    assert done.stdout == "green: champion is green/2, trained to 2023-02; it was green/3\n"


def test_one_command_approves_on_the_report_that_was_read(command, uri, tmp_path):
    report = tmp_path / "05-compare.html"
    report.write_text("read me")
    from taxi.files import sha256_file

    waiting = register(
        uri, "2023-04", awaits_approval="dev", reports=json.dumps({"05-compare.html": sha256_file(report)})
    )

    done = command("approve", f"green/{waiting}", "--report", str(report), "--by", "ada", "--json")

    assert (done.exit_code, json.loads(done.stdout)["champion"]) == (0, waiting)
    assert aliases(uri)["champion"] == waiting


def test_approving_without_a_report_is_wrong_usage(command, tmp_path):
    done = command("approve", "green/3", "--report", str(tmp_path / "none.html"))

    assert isinstance(done.exception, UsageError)
    assert "there is none" in str(done.exception)


def test_promoting_a_model_whose_files_are_gone_is_refused(command, uri):
    done = command("promote", "green/champion", "--to", "staging")

    assert isinstance(done.exception, Refused)
    assert "model: model green/3 green/3: no manifest was recorded" in str(done.exception)
    assert connect(uri).search_model_versions("name = 'taxi-green-staging'") == []


@pytest.mark.slow
def test_a_rollback_in_one_environment_leaves_the_others(command, uri):
    for name in ("green/2", "green/3"):
        shown = command("rollback", "--service", "green", "--to", "2") if name == "green/2" else None
        assert shown is None or shown.exit_code == 0
        if name == "green/3":
            command("rollback", "--service", "green", "--to", "3")
        promote(uri, find_version(uri, name), "staging", PARAMS, {}, "ada")

    done = command("rollback", "--service", "green", "--environment", "staging", "--json")

    assert json.loads(done.stdout)["to"] == 1
    assert aliases(uri, "taxi-green-staging") == {"champion": 1}
    assert aliases(uri)["champion"] == 3

"""Mutants of the Terraform module, which its rules must kill: one in the suite, all in the campaign."""

import json
import shutil
from pathlib import Path

import pytest

from terraform.operate.workspace import Terraform, copy_module
from tests.support.campaign import at_scale
from tests.support.mutants import MUTANTS, Mutant

pytestmark = pytest.mark.slow


@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_each_mutant_is_killed_by_the_rule_that_names_it(tmp_path: Path) -> None:
    if not shutil.which("terraform"):
        pytest.skip("terraform is not on the PATH")
    terraform = Terraform(copy_module(tmp_path / "module"), {})
    terraform.init()
    rules = terraform.folder / "tests/rules.tftest.hcl"
    rules.write_text(rules.read_text().partition("# where the lean profile differs")[0])
    names = at_scale(["star-with-write"], list(MUTANTS))

    failures = {name: _failures(terraform, MUTANTS[name]) for name in names}

    print(json.dumps(failures, indent=1))
    alive = [name for name, messages in failures.items() if not any(MUTANTS[name].rule in line for line in messages)]
    assert len(alive) <= len(names) // 20, {name: failures[name] for name in alive}
    assert not [name for name, messages in failures.items() if not all("Expected " in line for line in messages)]


def _failures(terraform: Terraform, mutant: Mutant) -> list[str]:
    """Return what the rules say of a mutant: an assertion's message, or another error's first line."""
    path = terraform.folder / mutant.file
    text = path.read_text()
    path.write_text(text.replace(mutant.before, mutant.after))
    done = terraform.call("test", "-json", "-no-color", allowed=(0, 1))
    path.write_text(text)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    said = [line["diagnostic"] for line in lines if line["type"] == "diagnostic" and line["@level"] == "error"]
    return [one["detail"] if one["summary"] == "Test assertion failed" else one["summary"] for one in said]

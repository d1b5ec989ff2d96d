"""Mutants of the Terraform module, which its rules must kill: one in the suite, all in the campaign."""

import shutil
from pathlib import Path

import pytest

from terraform.operate.workspace import Terraform, copy_module
from tests.support.campaign import at_scale
from tests.support.mutants import MUTANTS

pytestmark = pytest.mark.slow


@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_the_rules_kill_the_mutants(tmp_path: Path) -> None:
    if not shutil.which("terraform"):
        pytest.skip("terraform is not on the PATH")
    terraform = Terraform(copy_module(tmp_path / "module"), {})
    terraform.init()
    rules = terraform.folder / "tests/rules.tftest.hcl"
    rules.write_text(rules.read_text().partition('run "an_unknown_profile_is_refused"')[0])
    names = at_scale(["star-with-write"], list(MUTANTS))

    alive = [name for name in names if _passes(terraform, *MUTANTS[name])]

    assert len(alive) <= len(names) // 20, alive


def _passes(terraform: Terraform, file: str, before: str, after: str) -> bool:
    path = terraform.folder / file
    text = path.read_text()
    path.write_text(text.replace(before, after))
    done = terraform.call("test", "-filter=tests/rules.tftest.hcl", allowed=(0, 1))
    path.write_text(text)
    return done.returncode == 0

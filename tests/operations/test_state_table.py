"""Where each file of TAXI_DATA lives when a disk is not kept: the docs' table has what the code names, and nothing else."""

import re

from taxi.operations.backup import REBUILT
from taxi.registry.mlflow_client import ARTIFACTS
from tests.support.state_table import read_table
from tests.support.worlds import ROOT


def test_the_table_has_a_row_for_each_path_that_the_code_names_and_no_other() -> None:
    code = "".join(
        path.read_text(encoding="utf-8") for room in ("taxi", "pipelines") for path in ROOT.glob(f"{room}/**/*.py")
    )
    named = {*re.findall(r"\bdata\)? / f?[\"']([\w.]+)[\"']", code), ARTIFACTS}

    assert {name.partition("/")[0] for name in read_table()} == named


def test_what_a_backup_leaves_out_is_what_the_table_says_is_rebuilt() -> None:
    rebuilt = {name.strip("/") for name, fate in read_table().items() if fate.startswith("rebuilt")}

    assert set(REBUILT) - {ARTIFACTS} | {".locks", "models/<service>/versions", "zones"} == rebuilt

"""The runner: parameters are checked first, failures are explained and kept, and nothing is half-published."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from taxi.config import Settings
from taxi.errors import TaxiError, UsageError
from taxi.fingerprint import imports_of
from taxi.runs.notebooks import NotebookFailed, check_parameters, read_parameters, render_html, run_notebook
from taxi.runs.steps import execute_notebook
from tests.support.worlds import ROOT

pytestmark = pytest.mark.slow

PARAMETERS = 'service = "green"  # green | yellow\nrows = 5\nshare = 0.5\nnames = ["a"]'


def write(path: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    cells = [nbformat.v4.new_markdown_cell("# A question?")]
    cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_parameters_are_literals(tmp_path: Path) -> None:
    assert read_parameters(write(tmp_path / "n.ipynb")) == {"service": "green", "rows": 5, "share": 0.5, "names": ["a"]}
    with pytest.raises(UsageError, match=r"expected only `name = literal` among the parameters of n\.ipynb; line 1"):
        read_parameters(write(tmp_path / "n.ipynb", parameters="import os"))


def test_annotated_parameters_are_parameters_too(tmp_path: Path) -> None:
    notebook = write(tmp_path / "n.ipynb", parameters='rows: int = -5\nname: "str | None" = None')

    assert read_parameters(notebook) == {"rows": -5, "name": None}


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ("a = 1\n%matplotlib inline", 2),
        ("!ls\na = 1", 1),
        ("a = 1\nb = 2 * a", 2),
        ("a = dict()", 1),
        ("a = 1\n\na = 2", 3),
        ("a = b = 1", 1),
        ("a = 1\na += 1", 2),
        ("a: int", 1),
        ("a = ", 1),
        ("a = '\0'", 1),
        ("a = " + "[" * 500 + "]" * 500, 1),
    ],
)  # fmt: skip
def test_what_is_no_literal_among_the_parameters_is_named_by_its_line(
    parameters: str, line: int, tmp_path: Path
) -> None:
    notebook = write(tmp_path / "n.ipynb", parameters=parameters)

    with pytest.raises(UsageError, match=rf"among the parameters of n\.ipynb; line {line} is not"):
        read_parameters(notebook)


@pytest.mark.parametrize(
    "damaged",
    [
        lambda good: b"<<<<<<< HEAD\n" + good,
        lambda good: b"",
        lambda good: good[:-50],
        lambda good: good.decode().encode("utf-16"),
        lambda good: b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        lambda good: good.replace(b'"source"', b'"sauce"'),
        lambda good: b"[]",
        lambda good: b"[" * 100_000,
    ],
    ids=["merge marks", "0 bytes", "cut off", "UTF-16", "no cells", "no sources", "a list", "deep"],
)
def test_a_file_that_is_no_notebook_is_named(damaged: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb")
    path.write_bytes(damaged(path.read_bytes()))

    with pytest.raises(UsageError, match=r"expected a notebook at .*n\.ipynb; it cannot be read as one") as said:
        read_parameters(path)
    with pytest.raises(TaxiError, match=r"at .*n\.ipynb; it"):
        imports_of(path)

    assert "\n" not in str(said.value) and len(str(said.value)) < 400 + len(str(path))


def test_whatever_a_notebook_calls_its_kernel_it_runs_in_ours(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "print(rows + 1)")
    content = nbformat.read(path, as_version=4)
    content.metadata["kernelspec"] = {"name": "bash", "language": "R", "display_name": "my own"}
    content.metadata["language_info"] = {"name": "R"}
    nbformat.write(content, path)

    run = run_notebook(path, tmp_path / "out" / "n.html", {"rows": 41}, cwd=tmp_path)

    assert "42" in run.page.read_text(encoding="utf-8")


def test_an_unknown_parameter_is_a_usage_error_also_where_the_month_has_no_plan(tmp_path: Path) -> None:
    settings = Settings(ROOT, "", tmp_path / "data", tmp_path / "reports", "")

    with pytest.raises(UsageError, match="01-explore has no parameter 'nonsense'; there are"):
        execute_notebook(settings, "green", "2024-01", "01-explore", {"nonsense": 1})


def test_a_notebook_without_a_parameters_cell_is_refused(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(cells=[]), tmp_path / "n.ipynb")

    with pytest.raises(UsageError, match=r"expected one cell tagged `parameters` in n\.ipynb; there are 0"):
        read_parameters(tmp_path / "n.ipynb")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"colour": "red"}, "n has no parameter 'colour'; there are names, rows, service, share"),
        ({"rows": "5"}, r"expected rows of n as int \(default 5\); got str '5'"),
        ({"rows": True}, "expected rows of n as int"),
        ({"rows": 5.0}, "expected rows of n as int"),
        ({"share": "half"}, "expected share of n as float"),
        ({"api_key": "x"}, "'api_key' looks like a secret"),
        ({"db_password": "x"}, "'db_password' looks like a secret"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_a_kernel_starts(
    given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    notebook = write(tmp_path / "n.ipynb")

    with pytest.raises(UsageError, match=said):
        run_notebook(notebook, tmp_path / "out" / "n.html", given, cwd=tmp_path)

    assert not (tmp_path / "out").exists()


def test_a_whole_number_fits_a_float(tmp_path: Path) -> None:
    check_parameters(write(tmp_path / "n.ipynb"), {"share": 1})


def test_an_unknown_notebook_says_which_there_are(tmp_path: Path) -> None:
    write(tmp_path / "01-one.ipynb")

    with pytest.raises(UsageError, match="no notebook '02-two'; there are 01-one"):
        run_notebook(tmp_path / "02-two.ipynb", tmp_path / "n.html", {}, cwd=tmp_path)


def test_a_run_leaves_page_notebook_and_result(tmp_path: Path) -> None:
    notebook = write(
        tmp_path / "n.ipynb", "from taxi.runs.record import record\nprint(rows * 2)\nrecord(twice=rows * 2)"
    )

    run = run_notebook(
        notebook, tmp_path / "out" / "n.html", {"rows": 21}, cwd=tmp_path, fingerprint="abc", banner="Mind <this>."
    )

    result = json.loads(run.result_path.read_text(encoding="utf-8"))
    page = run.page.read_text(encoding="utf-8")
    assert result == {"format": 2, "notebook": "n", "parameters": {"rows": 21}, "fingerprint": "abc", "twice": 42}
    assert "42" in page
    assert "Mind &lt;this&gt;." in page
    assert not re.findall(r"(?:src|href)=[\"']https?:", page)
    assert len(page) < 100_000
    assert sorted(path.name for path in run.page.parent.iterdir()) == ["n.html", "n.ipynb", "n.json"]


def test_tables_text_and_pictures_are_on_the_page(tmp_path: Path) -> None:
    notebook = write(
        tmp_path / "n.ipynb",
        "import pandas as pd\npd.DataFrame({'minutes': [12.25]})",
        "from IPython.display import Markdown\nMarkdown('**seen**')",
        "from taxi.reporting import plots\nplots.feature_importance(pd.Series({'pair_minutes': 0.5}))",
    )

    page = run_notebook(notebook, tmp_path / "n.html", {}, cwd=tmp_path).page.read_text(encoding="utf-8")

    assert "<td>12.25</td>" in page
    assert "<strong>seen</strong>" in page
    assert page.count("data:image/png;base64,") == 1
    assert "¶" not in page


def test_each_notebook_has_a_kernel_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "one.ipynb", "import builtins\nbuiltins.leak = 1")
    write(tmp_path / "two.ipynb", "import builtins\nassert not hasattr(builtins, 'leak')")

    for name in ("one", "two"):
        run_notebook(tmp_path / f"{name}.ipynb", tmp_path / f"{name}.html", {}, cwd=tmp_path)


def test_a_failing_cell_is_explained_and_kept_and_the_good_page_stays(tmp_path: Path) -> None:
    notebook = write(tmp_path / "n.ipynb", "print('fine')")
    page = run_notebook(notebook, tmp_path / "out" / "n.html", {}, cwd=tmp_path).page
    good = page.read_bytes()
    write(tmp_path / "n.ipynb", "fine = 1", "ratio = rows / (rows - 5)")

    with pytest.raises(NotebookFailed) as failed:
        run_notebook(notebook, page, {}, cwd=tmp_path)

    said = str(failed.value)
    assert "n: cell 4 failed at `----> 1 ratio = rows / (rows - 5)`" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "n.failed.html" in said
    assert page.read_bytes() == good
    assert "ZeroDivisionError" in page.with_suffix(".failed.html").read_text(encoding="utf-8")
    assert page.with_suffix(".failed.ipynb").is_file()


def test_a_dead_kernel_is_an_error(tmp_path: Path) -> None:
    notebook = write(tmp_path / "n.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")

    with pytest.raises(NotebookFailed, match="Kernel died"):
        run_notebook(notebook, tmp_path / "n.html", {}, cwd=tmp_path)


def test_a_cell_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    notebook = write(tmp_path / "n.ipynb", "import time\ntime.sleep(60)")

    with pytest.raises(NotebookFailed, match="timed out"):
        run_notebook(notebook, tmp_path / "n.html", {}, cwd=tmp_path, timeout=2)


def test_code_is_hidden_behind_a_toggle(tmp_path: Path) -> None:
    page = render_html(write(tmp_path / "n.ipynb", "a = 1"), "n")

    assert ".code { display: none; }" in page
    assert "Show or hide code" in page
    assert "rows = 5" not in page  # the parameters cell is left out

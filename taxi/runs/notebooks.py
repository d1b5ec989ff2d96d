"""Notebook execution: parameters checked first, executed by papermill, kept whole or not at all, rendered as one HTML file."""

import ast
import json
import logging
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from taxi.config import TEMPLATES
from taxi.errors import TaxiError, UsageError
from taxi.files import publish, remove, staged, staging_path, write_json
from taxi.runs.kernels import ForkedKernelManager
from taxi.runs.record import MIME
from taxi.training.step_result import FORMAT

_LOG = logging.getLogger(__name__)
_SECRET = re.compile(r"pass(word|wd)?|secret|token|api_?key|credential", re.IGNORECASE)
LIMIT_BYTES = 5_000_000
# Every notebook runs in a kernel of ours: the name of another one is a label that Jupyter left.
LABEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
UNREADABLE = (ValueError, TypeError, AttributeError, KeyError, RecursionError, nbformat.ValidationError)


class NotebookFailed(TaxiError):
    """A cell raised, the kernel died or time ran out; the evidence stands beside the page that would have been made."""


@dataclass(frozen=True)
class NotebookRun:
    """What an executed notebook left: the page, its result as JSON, the executed notebook; and how long it took."""

    page: Path
    result_path: Path
    notebook: Path
    seconds: float


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook; raise UsageError, which names the file, if it is none: merge marks, no cells, cut off."""
    try:
        content = nbformat.read(path, as_version=4)
        nbformat.validate(content)
    except UNREADABLE as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(
            f"expected a notebook at {path}; it cannot be read as one: {said}. Restore it from git"
        ) from error
    return content


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Return the literals of the cell tagged ``parameters``, by name; raise UsageError unless there is exactly one such cell."""
    cells = [cell for cell in read_notebook(notebook).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UsageError(f"expected one cell tagged `parameters` in {notebook.name}; there are {len(cells)}")
    values: dict[str, Any] = {}
    line = 1
    try:
        for statement in ast.parse(cells[0].source).body:
            line = statement.lineno
            name, value = _assignment(statement)
            if name in values:
                raise ValueError(f"{name} is there already")
            values[name] = value
    except (SyntaxError, ValueError, TypeError) as error:
        line = getattr(error, "lineno", None) or line
        said = str(error).partition(":")[0].partition(" (")[0]  # without addresses of objects
        raise UsageError(
            f"expected only `name = literal` among the parameters of {notebook.name}; line {line} is not: {said}"
        ) from error
    return values


def _assignment(statement: ast.stmt) -> tuple[str, Any]:
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            return name, ast.literal_eval(value)
    raise ValueError("it gives no value to one name")


def check_parameters(notebook: Path, given: dict[str, Any]) -> None:
    """Raise UsageError if a given parameter is unknown, of another type than its default, or looks like a secret."""
    known = read_parameters(notebook)
    for name, value in given.items():
        if _SECRET.search(name):
            raise UsageError(
                f"{name!r} looks like a secret; those never pass as parameters, because notebooks keep them"
            )
        if name not in known:
            raise UsageError(f"{notebook.stem} has no parameter {name!r}; there are {', '.join(sorted(known))}")
        default = known[name]
        fits = type(value) is type(default) or (type(default) is float and type(value) is int) or default is None
        if not fits:
            expected = f"{type(default).__name__} (default {default!r})"
            raise UsageError(f"expected {name} of {notebook.stem} as {expected}; got {type(value).__name__} {value!r}")


def _prepare(notebook: Path, target: Path) -> None:
    content = read_notebook(notebook)
    content.metadata.setdefault("kernelspec", dict(LABEL))
    content.metadata.setdefault("language_info", {})["name"] = "python"
    nbformat.write(content, target)


def _failure(notebook: Path, error: PapermillExecutionError, executed: Path) -> str:
    marks = {"papermill-error-cell-tag", "injected-parameters"}
    cells = [
        cell for cell in nbformat.read(executed, as_version=4).cells if not marks & set(cell.metadata.get("tags", []))
    ]
    number, cell = next(
        (index, cell)
        for index, cell in enumerate(cells, 1)
        if any(out.get("output_type") == "error" for out in cell.get("outputs", []))
    )
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in error.traceback]
    arrow = next((line.strip() for block in plain for line in block.splitlines() if line.startswith("---->")), "")
    source = arrow or cell.source.splitlines()[0]
    return f"{notebook.stem}: cell {number} failed at `{source}`\n{error.ename}: {error.evalue}\n" + "\n".join(
        plain[-3:]
    )


def render_html(notebook: Path, title: str, subject: str = "", banner: str = "") -> str:
    """Return an executed notebook as one HTML page that needs no network: code behind a toggle, pictures inside.

    ``subject`` (which service and month) stands beside the links, ``banner`` (what a reader must know first) above the text.
    """
    exporter = HTMLExporter(template_name="report", extra_template_basedirs=[str(TEMPLATES)])
    exporter.embed_images = exporter.exclude_anchor_links = True
    exporter.mathjax_url = exporter.require_js_url = exporter.mermaid_js_url = ""
    content = nbformat.read(notebook, as_version=4)
    hidden = {"parameters", "injected-parameters"}
    content.cells = [cell for cell in content.cells if not hidden & set(cell.metadata.get("tags", []))]
    page, _ = exporter.from_notebook_node(
        content, resources={"metadata": {"name": f"{title} {subject}".strip(), "subject": subject, "banner": banner}}
    )
    return page


def _recorded(notebook: Path) -> dict[str, Any]:
    outputs = [out for cell in nbformat.read(notebook, as_version=4).cells for out in cell.get("outputs", [])]
    results = [out["data"][MIME] for out in outputs if MIME in out.get("data", {})]
    return results[-1] if results else {}


def _keep_evidence(executed: Path, page: Path) -> Path:
    failed = page.with_suffix(".failed.html")
    with staged(page.with_suffix(".failed.ipynb")) as part:
        part.write_bytes(executed.read_bytes())
    with staged(failed) as part:
        part.write_text(render_html(executed, f"{page.stem} (failed)"), encoding="utf-8")
    return failed


def execute(notebook: Path, target: Path, parameters: dict[str, Any], cwd: Path, timeout: int) -> None:
    """Execute ``notebook`` into ``target`` in a kernel of its own; papermill's and nbclient's errors pass through.

    A kernel that does not answer in its first minute has run nothing: another is started, once.
    """
    try:
        _execute(notebook, target, parameters, cwd, timeout)
    except RuntimeError as error:
        if "Kernel didn't respond" not in str(error):
            raise
        _LOG.warning("%s: %s; starting another", notebook.stem, error)
        _execute(notebook, target, parameters, cwd, timeout)


def _execute(notebook: Path, target: Path, parameters: dict[str, Any], cwd: Path, timeout: int) -> None:
    _prepare(notebook, target)
    papermill.execute_notebook(
        target,
        target,
        parameters,
        cwd=cwd,
        kernel_name=LABEL["name"],
        language=LABEL["language"],
        progress_bar=False,
        log_output=False,
        record_timing=False,
        execution_timeout=timeout,
        request_save_on_cell_execute=False,
        kernel_manager_class=ForkedKernelManager,
        shutdown_kernel="immediate",  # its files are written; asked politely, a busy machine's kernel takes seconds
    )


def run_notebook(
    notebook: Path,
    page: Path,
    parameters: dict[str, Any],
    *,
    cwd: Path,
    fingerprint: str = "",
    banner: str = "",
    timeout: int = 3600,
) -> NotebookRun:
    """Execute a notebook and publish ``page`` (HTML), the executed notebook, and last the result (JSON) beside it.

    Raises UsageError before a kernel starts if the parameters do not fit, and NotebookFailed if a cell fails; then what was
    published before stays, and the failed notebook is kept beside it, rendered too.
    """
    if not notebook.is_file():
        there = ", ".join(sorted(path.stem for path in notebook.parent.glob("*.ipynb")))
        raise UsageError(f"no notebook {notebook.stem!r}; there are {there}")
    check_parameters(notebook, parameters)
    begun = time.perf_counter()
    kept, result = page.with_suffix(".ipynb"), page.with_suffix(".json")
    page.parent.mkdir(parents=True, exist_ok=True)
    executed = staging_path(page.with_suffix(".ipynb"), "run")
    try:
        try:
            execute(notebook, executed, parameters, cwd, timeout)
        except PapermillExecutionError as error:
            message = _failure(notebook, error, executed)
            raise NotebookFailed(f"{message}\nThe failed notebook: {_keep_evidence(executed, page)}") from error
        except (DeadKernelError, CellTimeoutError) as error:
            raise NotebookFailed(
                f"{notebook.stem}: {error}\nThe failed notebook: {_keep_evidence(executed, page)}"
            ) from error
        subject = " ".join(str(parameters[name]) for name in ("service", "month") if name in parameters)
        html = render_html(executed, page.stem, subject, banner)
        if len(html.encode()) > LIMIT_BYTES:
            raise NotebookFailed(
                f"expected a page under {LIMIT_BYTES:,} bytes from {notebook.stem}; it has {len(html):,}"
            )
        seconds = time.perf_counter() - begun
        values = {
            "format": FORMAT,
            "notebook": notebook.stem,
            "parameters": parameters,
            "fingerprint": fingerprint,
            **_recorded(executed),
        }
        remove(result)
        with staged(page) as part:
            part.write_text(html, encoding="utf-8")
        publish(executed, kept)
        write_json(result, values)
        for old in (page.with_suffix(".failed.html"), page.with_suffix(".failed.ipynb")):
            remove(old)
    finally:
        remove(executed)
    return NotebookRun(page, result, kept, seconds)


def _strip(content: nbformat.NotebookNode) -> nbformat.NotebookNode:
    for cell in content.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    content.metadata = {
        name: content.metadata[name] for name in ("kernelspec", "language_info") if name in content.metadata
    }
    content.metadata["language_info"] = {"name": "python"}
    return content


def refresh_outputs(notebook: Path) -> None:
    """Execute a committed notebook with its own defaults and write it back with its outputs, free of times and paths."""
    executed = staging_path(notebook, "run")
    try:
        execute(notebook, executed, {}, notebook.parent, 3600)
        content = _strip(nbformat.read(executed, as_version=4))
        with staged(notebook) as part:
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    finally:
        remove(executed)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for one in sorted(Path(sys.argv[1]).glob("??-*.ipynb")):
        _LOG.info("executing %s", one.name)
        refresh_outputs(one)

"""Terminal output of a run: log lines on stderr, and the table at its end."""

import logging
import sys
from pathlib import Path
from typing import Any

from taxi.addresses import redact
from taxi.errors import TaxiError


class _Redacting(logging.Formatter):
    """Leaves out the secrets in addresses that a library's message or a traceback quotes."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _is_explained(record: logging.LogRecord) -> bool:
    """Return whether Prefect tells, once for the task and once for the flow, a failure that the command explains in one line."""
    error = record.exc_info[1] if record.exc_info else None
    repeated = isinstance(error, TaxiError | OSError) or record.getMessage().startswith("Finished in state Failed")
    return record.name.startswith("prefect") and repeated


def start_logging(verbose: bool) -> None:
    """Send log lines to stderr: coloured on a terminal, plain elsewhere; with every traceback if ``verbose``."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(_Redacting())
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    if not verbose:
        handler.addFilter(lambda record: not _is_explained(record))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("taxi", "pipelines"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)


def _minutes(scores: dict[str, Any] | None, name: str) -> str:
    return f"{scores['metrics'][name]:.3f}" if scores and scores["metrics"] else "–"


def show_summary(results: list[dict[str, Any]], reports: Path) -> None:
    """Print a table of the months' results, the reasons of the last one and of those refused, and where to look."""
    from rich.console import Console
    from rich.table import Table

    columns = ("month", "status", "kept", "refused", "champion RMSE", "MAE", "challenger RMSE", "promoted", "verdict")
    table = Table(*columns, title="minutes, on trips that neither model had seen")
    for result in results:
        rows, champion, challenger = result["rows"], result["champion"], result["challenger"]
        table.add_row(
            f"{result['service']} {result['month']}",
            result["status"] + (" (before)" if result.get("finished_before") else ""),
            f"{rows['kept']:,}",
            f"{rows['quarantined']:,}",
            _minutes(champion, "rmse"),
            _minutes(champion, "mae"),
            _minutes(challenger, "rmse"),
            "yes" if result["promoted"] else "no",
            ", ".join([result["verdict"] or "–", *result["alarms"]]),
        )
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    told = [result for result in results[:-1] if result["status"] == "refused"] + results[-1:]
    lines = [f"{result['month']}: {result['reason']}" for result in told]
    refused = [page for result in told if result["status"] == "refused" for page in result["reports"]]
    for line in [*lines, *(f"Open {page}" for page in [*refused, reports / "index.html"])]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

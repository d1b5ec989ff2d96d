"""Terminal output of a run: log lines on stderr, and the table at its end."""

import logging
import sys
from copy import copy
from pathlib import Path
from typing import Any

from taxi.errors import TaxiError


class _OneLine(logging.Formatter):
    """Leaves out Prefect's tracebacks of failures that the command explains in one line; never the message."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if record.name.startswith("prefect") and isinstance(error, TaxiError | OSError):
            record = copy(record)
            record.exc_info = record.exc_text = None
        return super().format(record)


def start_logging(verbose: bool) -> None:
    """Send log lines to stderr: coloured on a terminal, plain elsewhere; with every traceback if ``verbose``."""
    kind = logging.Formatter if verbose else _OneLine
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(kind())
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(kind("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("taxi", "pipelines"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)


def _minutes(scores: dict[str, Any] | None, name: str) -> str:
    return f"{scores['metrics'][name]:.3f}" if scores and scores["metrics"] else "–"


def show_summary(results: list[dict[str, Any]], reports: Path) -> None:
    """Print a table of the months' results, the last one's reason, and where to look."""
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
    for result in results[-1:]:
        console.print(f"{result['month']}: {result['reason']}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Open {reports / 'index.html'}", highlight=False, markup=False, soft_wrap=True)

"""The ``taxi`` command. Logs and progress go to stderr; what a command answers goes to stdout."""

import atexit
import gc
import logging
import signal
import sys
from typing import Annotated

import typer

from pipelines.commands import experiments, monitoring, months, operations, registry, serving
from pipelines.runtime import provide_user
from pipelines.terminal import start_logging
from taxi.addresses import redact
from taxi.errors import MonthRefused, NotPublished, Refused, TaxiError, UsageError

OBJECTS = 10_000  # made between two looks for garbage; thousands of modules are imported, and hold none
EXIT_CODES = {UsageError: 2, NotPublished: 3, MonthRefused: 4, Refused: 4}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Predict how long a New York taxi trip will take: ingest a month, explore, monitor, train, compare, promote.\n\n"
    "A first session, without a network:\n\n"
    "  taxi sample --out build/source --service green --from 2024-01 --to 2024-03\n\n"
    "  taxi backfill --service green --from 2024-01 --to 2024-03 --source build/source\n\n"
    "Exit codes: 0 done, 2 wrong usage, 3 not published, 4 refused, 1 anything else.\n\n"
    "Places: TAXI_SOURCE, TAXI_DATA, TAXI_REPORTS, MLFLOW_TRACKING_URI, TAXI_ARTIFACTS, TAXI_ENGINE, TAXI_SCHEDULER.",
)


@app.callback()
def _logging(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False) -> None:
    start_logging(verbose)
    provide_user()


for module in (months, registry, serving, experiments, monitoring, operations):
    app.add_typer(module.app)


def _end(number: int, frame: object) -> None:
    """End as any program does that is asked to: what is registered to be ended with it is ended."""
    sys.exit(128 + number)


def main() -> None:
    """Run the command line; every failure becomes one explained line on stderr and its exit code."""
    signal.signal(signal.SIGTERM, _end)
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)  # the end of a process needs no search through all that it imported
    try:
        app()
    except TaxiError as error:
        code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
        print(f"taxi: {redact(str(error))}", file=sys.stderr)
        sys.exit(code)
    except OSError as error:
        logging.getLogger("taxi").debug("where it came from", exc_info=True)
        place = f"cannot use {error.filename}: " if error.filename else ""
        print(f"taxi: {place}{redact(error.strerror or str(error))}; -v shows where", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

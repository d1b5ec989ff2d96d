"""Processes forked for tests, each in today's environment."""

import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from taxi.processes import FORKING


def fork(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a process in today's environment: what it is forked from may have been started in another."""
    process = FORKING.Process(target=_in_environment, args=(dict(os.environ), target, *arguments))
    process.start()
    return process


def _in_environment(environment: dict[str, str], target: Callable[..., None], *arguments: object) -> None:
    os.environ.update(environment)
    target(*arguments)

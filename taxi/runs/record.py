"""Recorded result of a notebook: an output of its own kind, which the runner writes to a JSON file."""

import json
from typing import Any

MIME = "application/vnd.taxi.result+json"


class Result:
    """A result that shows itself in a notebook."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {MIME: self.values, "text/plain": f"recorded: {', '.join(sorted(self.values))}"}


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"expected values that JSON can hold; got {type(value).__name__}: {value!r}")


def record(**values: Any) -> Result:
    """Record the notebook's result; the last one counts. Raises TypeError or ValueError for what JSON cannot hold.

    Numbers keep six decimals: the last bits of a sum differ from processor to processor.
    """
    text = json.dumps(values, allow_nan=False, default=_plain)
    return Result(json.loads(text, parse_float=lambda digits: round(float(digits), 6)))

"""What schemathesis must know of this service: loaded by its command, not by pytest."""

from typing import Any

import schemathesis


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Write 74.0 as 74: JSON Schema takes both for an integer, the service only the latter."""
    return _whole(body)

"""Other values than those of ``params.yaml``, for one run: given as ``section.name=value``, checked as the file is."""

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from taxi.errors import UsageError
from taxi.params import Params


def parse_overrides(given: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    """Return ``section.name`` to value for texts like ``model.rounds=60``; raise UsageError for others."""
    found = {}
    for text in given:
        name, there, value = text.partition("=")
        if not there or name.partition(".")[0] not in sections or "." not in name:
            listed = ", ".join(sections)
            raise UsageError(f"expected a parameter as section.name=value, section one of {listed}; got {text!r}")
        found[name] = yaml.safe_load(value)
    return found


def override(params: Params, values: dict[str, Any]) -> Params:
    """Return the parameters with other values by ``section.name``; raise UsageError if one is unknown or does not fit."""
    content = params.model_dump(mode="json")
    for name, value in values.items():
        section, _, entry = name.partition(".")
        content[section][entry] = value
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"params.yaml with {values}: {error}") from error

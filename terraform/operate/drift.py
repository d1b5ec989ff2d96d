"""Drift of an environment: what was changed by hand, attribute by attribute; exit 0 for none, 2 for some."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from terraform.operate.workspace import Terraform


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Return the attributes that differ, by their path, as (path, what there is, what Terraform says)."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{path}[{number}]")
    elif before != after:
        yield path, before, after


def changes(plan: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    """Return what a plan would change back: (address, attribute, what there is, what Terraform says); values unknown yet count for nothing."""
    lines = []
    for one in plan.get("resource_changes", []):
        change = one["change"]
        if one["mode"] == "data" or change["actions"] == ["no-op"]:
            continue
        if change["before"] is None or change["after"] is None:
            lines.append(
                (one["address"], "", *("there" if change[side] else "not there" for side in ("before", "after")))
            )
            continue
        unknown = change["after_unknown"]
        after = change["after"] | {key: change["before"].get(key) for key, value in unknown.items() if value is True}
        lines += [(one["address"], *line) for line in differences(change["before"], after)]
    return lines


def main() -> int:
    """Compare an environment with its state and name what was changed by hand; nothing is changed."""
    parser = argparse.ArgumentParser(prog="python -m terraform.operate.drift", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="initialised folder of the module")
    parser.add_argument("--var-file", required=True, help="the environment's, as environments/prod.tfvars")
    given = parser.parse_args()
    lines = changes(Terraform(given.folder, {}).plan("-lock=false", f"-var-file={given.var_file}"))
    for address, attribute, before, after in lines:
        print(f"{address}: {attribute or 'it'} is {before!r}, and Terraform says {after!r}")
    if not lines:
        print("no drift: everything is as Terraform says")
    return 2 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

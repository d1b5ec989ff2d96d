"""Result of a hyperparameter search: as a file, as lines to paste into params.yaml, and in words."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from taxi.config import MonthPaths
from taxi.errors import TaxiError
from taxi.files import read_model, remove, staged, write_json
from taxi.models.folds import MEASURES, FoldTrips, relative_loss
from taxi.params import Params, SearchParams

NAMED = {"rmse": "RMSE of the mean", "mae": "MAE of the median", "interval": "score of the 80 % interval"}


def search_file(paths: MonthPaths) -> Path:
    """Return where the month's search is kept; there only where one was run."""
    return paths.search


def fragment_file(paths: MonthPaths) -> Path:
    """Return where the lines to paste lie; there only where a better recipe was found."""
    return paths.models / "search.yaml"


def describe_search(
    service: str,
    month: str,
    folds: list[FoldTrips],
    best: Mapping[str, Any],
    now: Mapping[str, Any],
    counts: Mapping[str, int],
    budget: SearchParams,
    seconds: float,
) -> dict[str, Any]:
    """Return the search as JSON can hold it; ``best`` and ``now`` hold ``settings`` and ``scores``, one dict a fold.

    ``gain`` is the fall of each measure against the current recipe (shares, means over folds), by fold in ``folds``.
    """
    rows = [
        {
            "judged": one.fold.judged,
            "learnt": one.fold.learnt,
            "trips": len(one.past),
            "judged_trips": len(one.judging),
            "now": old,
            "best": new,
            "loss": relative_loss([new], [old]),
        }
        for one, old, new in zip(folds, now["scores"], best["scores"], strict=True)
    ]
    gain = {name: 1 - sum(row["best"][name] / row["now"][name] for row in rows) / len(rows) for name in MEASURES}
    changed = {
        name: [old, best["settings"][name]] for name, old in now["settings"].items() if old != best["settings"][name]
    }
    return {
        "service": service,
        "month": month,
        **counts,
        "budget": budget.model_dump(mode="json"),
        "seconds": round(seconds, 1),
        "folds": rows,
        "loss": relative_loss(best["scores"], now["scores"]),
        "gain": gain,
        "settings": dict(best["settings"]),
        "changed": changed,
    }


def _swap(value: str, found: re.Match[str]) -> str:
    head, old, gap = found.groups()
    return head + (f"{value} ".ljust(len(old + gap)) if gap else value)


def fragment(text: str, settings: Mapping[str, Any]) -> str:
    """Return the section ``model`` of params.yaml's ``text`` with these values in place of its own; comments stay.

    Raises TaxiError if one of them is not in it exactly once.
    """
    found = re.search(r"^model:.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    section = found.group() if found else ""
    for name, value in settings.items():
        section, times = re.subn(rf"^(  {name}: *)(\S+)( *)", partial(_swap, str(value)), section, flags=re.MULTILINE)
        if times != 1:
            raise TaxiError(f"expected {name} once in the section model of params.yaml; it is there {times} times")
    return section.rstrip() + "\n"


def keep_found(paths: MonthPaths, found: Mapping[str, Any], params_text: str) -> str | None:
    """Write the search beside the month's models, with the lines to paste; return these, None if nothing is better."""
    write_json(search_file(paths), found)
    if not found["changed"]:
        remove(fragment_file(paths))
        return None
    lines = f"# {summary(found)}\n" + fragment(params_text, {name: new for name, (_, new) in found["changed"].items()})
    with staged(fragment_file(paths)) as part:
        part.write_text(lines, encoding="utf-8")
    return lines


def read_found(paths: MonthPaths) -> dict[str, Any] | None:
    """Read the month's search; None where none was run."""
    return load_search(search_file(paths)) if search_file(paths).is_file() else None


def load_search(path: Path) -> dict[str, Any]:
    """Read a search's result; raise TaxiError that names it if it is damaged."""
    return read_model(path, dict[str, Any], "what a search found", "Remove it and run `taxi search` again")


def summary(found: Mapping[str, Any]) -> str:
    """Return one sentence: how many recipes were tried, on what, and what the best was worth."""
    months = ", ".join(row["judged"] for row in found["folds"])
    tried = f"Of {found['tried']} recipes ({found['pruned']} given up early), judged on {months}"
    if not found["changed"]:
        return f"{tried}, none was better than the current one."
    better = sum(row["loss"] < 1 for row in found["folds"])
    worth = ", ".join(f"{NAMED[name]} {-gain:+.1%}" for name, gain in found["gain"].items())
    return f"{tried}, the best against the current one: {worth}; better in {better} of {len(found['folds'])} folds."


def explain_found(found: Mapping[str, Any] | None, params: Params, paths: MonthPaths) -> str:
    """Return what the search found and was worth, as Markdown; one sentence where none was run."""
    if found is None:
        command = f"taxi search --service {paths.service} --month {paths.month}"
        return f"No search for a better recipe was run for this month (`{command}` runs one)."
    if not found["changed"]:
        return summary(found)
    rows = [f"| `{name}` | {old} | {new} |" for name, (old, new) in found["changed"].items()]
    held = all(getattr(params.model, name) == new for name, (_, new) in found["changed"].items())
    state = (
        "`params.yaml` holds it by now."
        if held
        else f"`params.yaml` does not hold it; `{fragment_file(paths).name}` beside the month's models has the lines."
    )
    caution = "The best of many on the same folds looks a little better there than it is; a later month decides."
    table = "\n".join(["| setting | current | found |", "| --- | --- | --- |", *rows])
    return f"{summary(found)} {caution} {state}\n\n{table}"

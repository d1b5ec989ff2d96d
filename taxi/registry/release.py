"""Promotion between environments, from dev over staging to prod: each is a registered model of its own, and each has its gate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from taxi.errors import Refused, UsageError
from taxi.params import MonitorParams, Params, ReleaseParams
from taxi.registry.aliases import carry_out, close_request, is_unanswered, make_name, settle_open
from taxi.registry.events import COPY, Event, fold_tags, now
from taxi.registry.mlflow_client import Client, changing, prepare, reaching
from taxi.registry.versions import (
    ENVIRONMENTS,
    Registered,
    Version,
    find_version,
    model_name,
    pick_champion,
    read_registered,
    versions,
)


@dataclass(frozen=True)
class Condition:
    """One condition of a gate: whether it is met, and why or why not."""

    name: str
    met: bool
    reason: str


def environment_before(environment: str) -> str:
    """Return the environment that versions enter this one from; raise UsageError for dev and for unknown ones."""
    if environment not in ENVIRONMENTS[1:]:
        raise UsageError(
            f"expected an environment to promote to, one of {', '.join(ENVIRONMENTS[1:])}; got {environment!r}"
        )
    return ENVIRONMENTS[ENVIRONMENTS.index(environment) - 1]


def check_champion(one: Version, champion: Version | None) -> Condition:
    """Only the champion of the environment before may go on."""
    met = champion is not None and champion.number == one.number
    return Condition("champion", met, f"{champion.label if champion else 'none'} is the champion of {one.environment}")


def check_newer(one: Version, target: str, there: Sequence[Version]) -> Condition:
    """It must not be there already, and not be trained to an earlier month than the champion there."""
    source = f"models:/{model_name(one.service, one.environment)}/{one.number}"
    if copies := [copy for copy in there if copy.source == source]:
        return Condition(
            "newer", False, f"{one.label} is in {target} already, as {copies[-1].label}; see taxi rollback --to"
        )
    champion = pick_champion(there)
    if champion and champion.trained_to > one.trained_to:
        said = f"{champion.label} was trained to {champion.trained_to}, {one.label} to {one.trained_to}: roll {target} back first"
        return Condition("newer", False, said)
    return Condition(
        "newer", True, f"trained to {one.trained_to}; in {target}: {champion.trained_to if champion else 'none'}"
    )


def check_coverage(one: Version, monitor: MonitorParams) -> Condition:
    """The 80 % interval must have held on the month that judged the version."""
    share = one.metrics.get("coverage80")
    met = share is not None and monitor.coverage_low <= share <= monitor.coverage_high
    shown = "unknown" if share is None else f"{share:.1%}"
    limits = f"{monitor.coverage_low:.0%} to {monitor.coverage_high:.0%}"
    return Condition("coverage", met, f"coverage of the 80 % interval was {shown} (limits {limits})")


def check_origin(one: Version, release: ReleaseParams) -> Condition:
    """Synthetic trips and code that is in no commit do not make a model for prod, unless params.yaml lets them."""
    if one.tags["synthetic"] == "true" and not release.synthetic:
        return Condition("origin", False, "trained on synthetic trips (release.synthetic)")
    commit, dirty = one.tags["git_commit"], one.tags["git_dirty"] == "true"
    if (dirty or commit == "none") and not release.uncommitted:
        return Condition(
            "origin", False, f"made by code that is in no commit (release.uncommitted); nearest is {commit}"
        )
    return Condition("origin", True, f"made by commit {commit}")


def check_approval(one: Version, target: str, release: ReleaseParams) -> Condition:
    """A person must have approved it, on the report that judged it, where params.yaml asks for that."""
    if target not in release.approval:
        return Condition("approval", True, f"params.yaml asks for none in {target}")
    note = one.approval(target)
    command = f"taxi approve {one.service}/{one.number} --environment {one.environment} --for {target} --report …"
    if not note:
        return Condition("approval", False, f"none yet: {command}")
    if note["sha256"] not in one.deciding_reports.values():
        given = f"given on {note.get('report')}; expected {', '.join(sorted(one.deciding_reports)) or 'a comparison'}"
        return Condition("approval", False, f"{given}: {command}")
    return Condition("approval", True, f"by {note.get('by')} on {note.get('report')}, sha256 {note['sha256']}")


def check_evidence(name: str, fault: str | None) -> Condition:
    """Whether what had to be recomputed (files and golden trips, or all of the lineage) agrees with what is recorded."""
    return Condition(name, fault is None, fault or "recomputed; agrees")


def open_gate(
    one: Version,
    target: str,
    champion: Version | None,
    there: Sequence[Version],
    params: Params,
    faults: dict[str, str | None],
) -> list[Condition]:
    """Return all conditions of ``target``'s gate for ``one``: staging asks whether it is good, prod also where it is from.

    ``champion`` is that of the environment before, ``there`` the versions in ``target``; ``faults`` are what recomputing found.
    """
    checks = [check_champion(one, champion), check_newer(one, target, there), check_coverage(one, params.monitor)]
    checks += [check_evidence(name, fault) for name, fault in faults.items()]
    if target == ENVIRONMENTS[-1]:
        checks.append(check_origin(one, params.release))
    return [*checks, check_approval(one, target, params.release)]


def promote(
    tracking_uri: str,
    one: Version,
    target: str,
    params: Params,
    faults: dict[str, str | None],
    by: str,
    answer: Callable[[Version, list[Condition]], object] = lambda *_: None,
) -> tuple[Version, list[Condition]]:
    """Copy the version into ``target`` and make it champion there, if the gate is open; raise Refused with what is not met.

    The copy and the move of the alias are one event: a crash between them is finished at the next start, and the command typed
    again before it told ``answer`` is the same request.
    """
    if environment_before(target) != one.environment:
        raise UsageError(f"expected a version of {environment_before(target)}; got {one.label}")
    prepare(tracking_uri)
    name = model_name(one.service, target)
    with changing(tracking_uri, one.service) as client:
        with reaching(tracking_uri):
            checks = _enter(client, tracking_uri, one, target, params, faults, by)
        made = find_version(tracking_uri, f"{one.service}/champion", environment=target)
        answer(made, checks)
        with reaching(tracking_uri):
            close_request(client, name)
    return made, checks


def _enter(
    client: Client, uri: str, one: Version, target: str, params: Params, faults: dict[str, str | None], by: str
) -> list[Condition]:
    name = model_name(one.service, target)
    make_name(client, name)
    for settled in (model_name(one.service, one.environment), name):
        settle_open(client, settled)
    one = _with_said_approval(one, read_registered(client, model_name(one.service, one.environment)), target)
    champion = pick_champion(versions(uri, one.service, one.environment))
    registered, there = read_registered(client, name), versions(uri, one.service, target)
    entry = _entry(one, registered.aliases.get("champion"), by)
    if begun := is_unanswered(registered, by) and registered.last.copied == entry.copied:
        there = [copy for copy in there if copy.source != entry.copied]
    checks = open_gate(one, target, champion, there, params, faults)
    if not begun:
        if closed := [f"{check.name}: {check.reason}" for check in checks if not check.met]:
            raise Refused(f"{one.label} does not enter {target}: {'; '.join(closed)}")
        carry_out(client, registered, entry)
    return checks


def _with_said_approval(one: Version, registered: Registered, target: str) -> Version:
    """Return the version with the approval that an event says, whatever its tag says: a tag may be typed by anyone."""
    name = f"approved.{target}"
    said = fold_tags(registered.events.values()).get(str(one.number), {}).get(name, "")
    return replace(one, tags=one.tags | {name: said})


def _entry(version: Version, before: str | None, by: str) -> Event:
    at, source = now(), f"models:/{model_name(version.service, version.environment)}/{version.number}"
    said = {"released_from": version.label, "released_at": at, "released_by": by}
    tags = {COPY: {name: [None, text] for name, text in said.items()}}
    why = f"{version.label} entered from {version.environment}"
    return Event(at, by, why, {"champion": [before, COPY]}, tags, source)

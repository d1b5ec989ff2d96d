"""Registered versions and their files. "No champion yet" is None; a registry without an answer is an error."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from taxi.config import parse_service
from taxi.errors import UsageError
from taxi.files import remove, sha256_tree, staged
from taxi.registry.events import ANSWERED, Event, fold_tags, read_events
from taxi.registry.integrity import (
    WRAPPED_NAME,
    Manifest,
    UnsafeModel,
    check_model_folder,
    check_names,
    check_registered_folder,
    model_part,
    read_manifest,
)
from taxi.registry.mlflow_client import Client, connect, is_missing, prepare, reaching

# --- Registered versions as plain values: which is the champion, which one is asked for, and the way back to its bytes.

DEV = "dev"
DECIDING = (
    "05-compare"  # the report that judges a challenger: what a person approves on, and whose figures a gate reads
)
ENVIRONMENTS = (DEV, "staging", "prod")


def model_name(service: str, environment: str = DEV) -> str:
    """Return the registered model's name in an environment: ``taxi-green``, ``taxi-green-staging``, ``taxi-green-prod``."""
    if environment not in ENVIRONMENTS:
        raise UsageError(f"expected an environment, one of {', '.join(ENVIRONMENTS)}; got {environment!r}")
    return f"taxi-{service}" if environment == DEV else f"taxi-{service}-{environment}"


@dataclass(frozen=True)
class Version:
    """One registered version of a service's model; ``metrics`` are those of the month that judged its recipe."""

    service: str
    number: int
    trained_from: str
    trained_to: str
    promoted_in: str | None
    metrics: dict[str, float]
    tags: dict[str, str]
    source: str
    run_id: str
    environment: str = DEV

    @property
    def label(self) -> str:
        """The version as messages name it: ``green/4``, or ``green/2 in prod``."""
        return f"{self.service}/{self.number}" + ("" if self.environment == DEV else f" in {self.environment}")

    @property
    def in_use(self) -> bool:
        """Whether it may be champion: promoted, approved where a person must approve, and not rolled back."""
        waits = "awaits_approval" in self.tags and not self.approval(DEV)
        return bool(self.promoted_in) and not waits and not self.tags.get("rolled_back")

    @property
    def recorded_reports(self) -> dict[str, str]:
        """SHA-256 of the month's reports as they were when the version was registered, by file name."""
        return dict(json.loads(self.tags.get("reports", "{}")))

    @property
    def deciding_reports(self) -> dict[str, str]:
        """The recorded reports that say why the version was promoted, the page and its notebook."""
        return {name: digest for name, digest in self.recorded_reports.items() if name.startswith(f"{DECIDING}.")}

    def approval(self, environment: str) -> dict[str, str]:
        """Return who let the version into an environment, when and on which report; {} if none, or on a report not its own."""
        try:
            note = dict(json.loads(self.tags.get(f"approved.{environment}") or "{}"))
        except (ValueError, TypeError):  # a tag that `taxi approve` did not write
            return {}
        return note if note.get("sha256") in self.recorded_reports.values() else {}


def newest_version(versions: Sequence[Version]) -> Version | None:
    """Return the version trained to the latest month, the last one registered of several; None if there is none."""
    return max(versions, key=lambda one: (one.trained_to, one.number), default=None)


def pick_champion(versions: Sequence[Version], before: str = "9999-12") -> Version | None:
    """Return the newest version in use whose training ends before the month ``before``; None if there is none."""
    return newest_version([one for one in versions if one.in_use and one.trained_to < before])


def pick_version(versions: Sequence[Version], service: str, number: str) -> Version:
    """Return the version of that number, or the ``champion``; raise UsageError that lists what there is."""
    known = {str(one.number): one for one in versions}
    if champion := pick_champion(versions):
        known["champion"] = champion
    if number not in known:
        listed = ", ".join(f"{service}/{one}" for one in known) or "none yet"
        raise UsageError(f"expected a version as SERVICE/NUMBER; got '{service}/{number}'; there are: {listed}")
    return known[number]


MOST_FILES = 100
MLFLOWS_NOTE = (
    "registered_model_meta"  # MLflow adds it to what it fetches, and where the store is a folder, to the store
)


def _version(one: ModelVersion, service: str, environment: str) -> Version:
    tags = dict(one.tags)
    metrics = {name.removeprefix("metric."): float(value) for name, value in tags.items() if name.startswith("metric.")}
    trained, number = (tags["trained_from"], tags["trained_to"]), int(one.version)
    source, run_id = str(one.source), str(one.run_id)
    return Version(service, number, *trained, tags.get("promoted_in"), metrics, tags, source, run_id, environment)


@dataclass(frozen=True)
class Registered:
    """A registered model as MLflow has it now; ``events`` say how its aliases and its versions' tags are to be.

    ``answered`` is the tag of the newest event whose command has said so to the person who typed it.
    """

    name: str
    aliases: dict[str, str]
    versions: list[ModelVersion]
    events: dict[str, Event]
    answered: str | None

    @property
    def last(self) -> Event:
        """The newest event."""
        return [*self.events.values()][-1]


def _registered_model(client: Client, name: str) -> RegisteredModel:
    """Return a registered model; one that is not there has no tags and no aliases."""
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if is_missing(error):
            return RegisteredModel(name)
        raise


def read_registered(client: Client, name: str) -> Registered:
    """Read a registered model with all its versions."""
    model = _registered_model(client, name)
    made = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    events = read_events(model.tags, {str(version.source): str(version.version) for version in made})
    aliases = {alias: str(number) for alias, number in model.aliases.items()}
    return Registered(name, aliases, list(made), events, model.tags.get(ANSWERED))


def with_tags(versions: Sequence[Version], said: Mapping[str, Mapping[str, str]]) -> list[Version]:
    """Return the versions with the tags that ``fold_tags`` said of them."""
    return [replace(version, tags={**version.tags, **said.get(str(version.number), {})}) for version in versions]


def versions(tracking_uri: str, service: str, environment: str = DEV) -> list[Version]:
    """Return the versions that this package registered, as the events say, oldest first; nothing is written.

    Raises RegistryUnreachable without an answer; a SQLite file that is not there is a registry without versions.
    """
    if not prepare(tracking_uri, make=False):
        return []
    with reaching(tracking_uri):
        registered = read_registered(connect(tracking_uri), model_name(service, environment))
    ours = [_version(one, service, environment) for one in registered.versions if "fingerprint" in one.tags]
    return sorted(with_tags(ours, fold_tags(registered.events.values())), key=lambda version: version.number)


def champion_before(tracking_uri: str, service: str, month: str) -> Version | None:
    """Return the newest version in use whose training ends before ``month``; None if the registry has none."""
    return pick_champion(versions(tracking_uri, service), month)


def champion_now(tracking_uri: str, service: str, environment: str = DEV) -> Version | None:
    """Return the champion by the registry's events, whatever its aliases say so far; None if it has none. Nothing is written."""
    return pick_champion(versions(tracking_uri, service, environment))


def aliased_version(tracking_uri: str, service: str, alias: str, environment: str = DEV) -> Version | None:
    """Return the version that ``alias`` (champion, challenger) names in MLflow now; None if it names none.

    Raises RegistryUnreachable without an answer: that is never read as "none".
    """
    if not prepare(tracking_uri, make=False):
        return None
    with reaching(tracking_uri):
        client, name = connect(tracking_uri), model_name(service, environment)
        number = _registered_model(client, name).aliases.get(alias)
        return _version(client.get_model_version(name, str(number)), service, environment) if number else None


def recorded_manifest(wanted: Version) -> Manifest:
    """Return the manifest recorded when the version was registered; raise UnsafeModel if there is none."""
    try:
        return read_manifest(wanted.tags.get("manifest"))
    except UnsafeModel as error:
        raise UnsafeModel(f"{wanted.label}: {error}") from error


def is_model_of(wanted: Version, folder: Path) -> bool:
    """Return whether ``folder`` holds this version's model, every byte of it as recorded."""
    if not folder.is_dir():
        return False
    try:
        check_model_folder(folder, model_part(recorded_manifest(wanted))[1])
    except UnsafeModel:
        return False
    return sha256_tree(folder) == wanted.tags["model_sha256"]


def download_model(tracking_uri: str, wanted: Version, folder: Path) -> None:
    """Bring a version's model into ``folder``, whole; nothing of it is parsed before all of it is as registered.

    Raises UnsafeModel, which names the fault, if it is not; RegistryUnreachable if it cannot be fetched.
    """
    if is_model_of(wanted, folder):
        return
    with staged(folder) as part:
        everything = Path(f"{part}-all")
        try:
            manifest = recorded_manifest(wanted)
            got = fetch_registered(tracking_uri, wanted, everything)
            check_registered_folder(got, manifest)
            model = got / model_part(manifest)[0]
            expected, found = wanted.tags["model_sha256"], sha256_tree(model)
            if found != expected:
                raise UnsafeModel(f"expected the model with sha256 {expected}; the registry has {found}")
            model.rename(part)
        except UnsafeModel as error:
            raise UnsafeModel(f"{wanted.label} is refused: {error}") from error
        finally:
            remove(everything)


def _listed(uri: str, path: str = "") -> Iterator[str]:
    for one in mlflow.artifacts.list_artifacts(artifact_uri=f"{uri}/{path}".rstrip("/")):
        if one.is_dir:
            yield from _listed(uri, one.path)
        else:
            yield one.path


def _some(names: Iterator[str]) -> list[str]:
    kept = [name for name, _ in zip(names, range(MOST_FILES), strict=False)]
    if len(kept) == MOST_FILES:
        raise UnsafeModel(f"the registry has {MOST_FILES} files or more for one model")
    return kept


def fetch_registered(tracking_uri: str, wanted: Version, into: Path) -> Path:
    """Fetch the folder that MLflow keeps for a version, once its names are those recorded; return where it lies.

    Raises UnsafeModel for other names, and where the store itself names a place outside of the model.
    """
    prepare(tracking_uri)
    uri = f"models:/{model_name(wanted.service, wanted.environment)}/{wanted.number}"
    into.mkdir(parents=True)
    with reaching(tracking_uri):
        connect(tracking_uri)
        try:
            names = [name for name in _some(_listed(uri)) if name != MLFLOWS_NOTE]
            check_names(names, recorded_manifest(wanted), WRAPPED_NAME)
            got = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
        except MlflowException as error:
            if error.error_code == "INVALID_PARAMETER_VALUE":
                raise UnsafeModel(f"the store names a place outside of the model: {error.message}") from error
            raise
    remove(got / MLFLOWS_NOTE)
    return got


def find_version(tracking_uri: str, wanted: str, service: str | None = None, environment: str = DEV) -> Version:
    """Return the version that SERVICE/NUMBER, SERVICE/champion or NUMBER names; UsageError lists what there is."""
    service, _, number = (wanted if "/" in wanted else f"{service}/{wanted}").partition("/")
    return pick_version(versions(tracking_uri, parse_service(service), environment), service, number)

"""Software bill of materials (SBOM) in CycloneDX 1.5 JSON: each locked package with its purl and the SHA-256 of the wheel that is installed."""

import re
import uuid
from collections.abc import Collection
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def locked_packages(lock: str, python: str) -> dict[str, tuple[str, set[str]]]:
    """Return the packages of a lock that are installed on this kind of machine by this Python: name to version and accepted SHA-256s."""
    packages: dict[str, tuple[str, set[str]]] = {}
    for block in re.split(r"\n(?=\S)", lock.strip()):
        requirement = Requirement(block.partition("--hash")[0].rstrip(" \\\n"))
        if requirement.marker is None or requirement.marker.evaluate({"python_full_version": python}):
            version = str(requirement.specifier).removeprefix("==")
            packages[canonicalize_name(requirement.name)] = version, set(HASH.findall(block))
    return packages


def _component(name: str, version: str, digest: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    hashes = [{"alg": "SHA-256", "content": digest}]
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "hashes": hashes}


def make_sbom(image: str, commit: str, lock: str, wheels: Collection[str], python: str) -> dict[str, Any]:
    """Return the bill of an image from its lock and the SHA-256s of the wheels; raise KeyError where a package has no wheel.

    It holds the packages of Python; those of the base image are the base's to name.
    """
    components = []
    for name, (version, accepted) in sorted(locked_packages(lock, python).items()):
        if not (installed := accepted & set(wheels)):
            raise KeyError(f"expected a wheel of {name} {version} that the lock accepts; there is none")
        components.append(_component(name, version, min(installed)))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, image + commit + lock)}",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": image, "name": image, "version": commit}},
        "components": components,
        "dependencies": [{"ref": image, "dependsOn": [component["bom-ref"] for component in components]}],
    }

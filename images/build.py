"""Container images by buildah: what they are built from, their digests and sizes, and a push to a registry.

``python -m images.build --base IMAGE@sha256:…`` builds ``service`` and ``jobs`` from the commit that is checked out and writes
``build/images/<target>.json`` and ``build/images/<target>.cdx.json`` (the SBOM).
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from images.sbom import make_sbom

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "images"
TARGETS = ("service", "jobs")
OUR_BASE = "localhost/taxi-base"
MADE = "debootstrap"  # in the place of a base: one of Debian's own packages
# All files of an image have one time, so that the same bytes make the same layer whenever they are built; zip knows none before 1980.
EPOCH = "315532800"
LOCAL_REGISTRY = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?(/|$)")


def call(*words: str, **more: Any) -> str:
    """Run a command and return what it printed; raise SystemExit with its last words where it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, **more)
    if done.returncode:
        raise SystemExit(f"{' '.join(words[:3])} … ended with {done.returncode}; its messages are above")
    return done.stdout.strip()


def require_tools(*names: str) -> None:
    """Raise SystemExit with the Debian packages to install where a command is missing."""
    if missing := [name for name in names if not shutil.which(name)]:
        raise SystemExit(f"images are built by {', '.join(missing)}, missing here: apt-get install {' '.join(missing)}")


def checked_base(base: str) -> str:
    """Return a base image that names its bytes; raise SystemExit for one whose tag may move."""
    if base == MADE or base.startswith("localhost/") or re.search(r"@sha256:[0-9a-f]{64}$", base):
        return base
    raise SystemExit(
        f"expected a base by digest (python:3.11-slim-bookworm@sha256:…), localhost/… or {MADE}; got {base!r}"
    )


def make_base() -> str:
    """Make a base image of Debian's packages, as root, unless it was made before; return its name."""
    if not call("buildah", "images", "--quiet", "--filter", f"reference={OUR_BASE}"):
        require_tools("debootstrap")
        with tempfile.TemporaryDirectory(dir=BUILD) as place:
            packages = "--include=ca-certificates,python3,python3-venv"
            call("debootstrap", "--variant=minbase", packages, "bookworm", place)
            for waste in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
                shutil.rmtree(Path(place, waste))
                Path(place, waste).mkdir()
            for of_this_machine in ("etc/hostname", "etc/resolv.conf"):
                Path(place, of_this_machine).write_text("")
            container = call("buildah", "from", "scratch")
            call("buildah", "add", "--quiet", container, place, "/")
            call("buildah", "commit", "--quiet", "--rm", container, OUR_BASE)
    return OUR_BASE


def sha256(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def accept_built(lock: str, wheels: Path) -> str:
    """Return a lock that also accepts the wheels that were built here from locked sources."""
    for wheel in sorted(wheels.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        if (digest := sha256(wheel)) not in lock:
            head = rf"^({re.escape(name).replace('_', '[-_.]')}=={re.escape(version)}[ ;].*)\\$"
            lock = re.sub(head, rf"\1--hash=sha256:{digest} \\", lock, flags=re.MULTILINE | re.IGNORECASE)
    return lock


def make_wheels(folder: Path, *what: str, **more: Any) -> None:
    """Fetch or build wheels by pip, as this machine has it set up; a build gives the same bytes again."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps")
    call(*pip, "--wheel-dir", str(folder), *what, env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH}, **more)


def fetch_packages(context: Path, source: Path) -> None:
    """Lay the locked packages into the context as wheels, unless those of these locks lie there."""
    locks = {target: source / f"{target}.lock" for target in TARGETS}
    wheels, fetched = context / "wheels", context / "fetched.json"
    marks = {target: sha256(path) for target, path in locks.items()}
    if fetched.is_file() and json.loads(fetched.read_text()) == marks:
        return
    fetched.unlink(missing_ok=True)
    shutil.rmtree(wheels, ignore_errors=True)
    any_python = re.sub(
        r" ; python_full_version [<>=]+ '[0-9.]+'", "", locks["jobs"].read_text()
    )  # the base's may differ from ours
    (context / "wheels.lock").write_text(any_python)
    make_wheels(wheels, "--require-hashes", "-r", str(context / "wheels.lock"))
    for path in locks.values():
        (context / path.name).write_text(accept_built(path.read_text(), wheels))
    fetched.write_text(json.dumps(marks))


def lay_context(commit: str) -> Path:
    """Lay out what the images are built from, as the commit has it: recipe, locks, the packages' wheels and our own."""
    context = BUILD / "context"
    context.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as place:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x"], cwd=place, input=archive, check=True)
        fetch_packages(context, Path(place))
        make_wheels(context / "wheels", "--no-build-isolation", "--no-index", ".", cwd=place)
        shutil.copy(Path(place, "prefect.yaml"), context)
        shutil.copytree(Path(place, "images"), context / "images", dirs_exist_ok=True)
    return context


def ask_python(base: str) -> str:
    """Return the version of a base's Python, which decides what of a lock is installed."""
    container = call("buildah", "from", base)
    version = call("buildah", "run", container, "python3", "-c", "import platform; print(platform.python_version())")
    call("buildah", "rm", container)
    return version


def build_image(target: str, base: str, context: Path, commit: str, created: str, fresh: bool) -> dict[str, Any]:
    """Build one image and keep it, compressed, in the folder ``build/images/<target>``; return what it is."""
    began = time.monotonic()
    image, folder = f"localhost/taxi/{target}:build-{commit[:12]}", BUILD / target
    lock = json.loads((context / "fetched.json").read_text())[target]
    arguments = {"BASE": base, "COMMIT": commit, "CREATED": created, "LOCK": lock}
    given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    options = ["--format=docker", "--layers", f"--timestamp={EPOCH}", "--network=none", "--force-rm", "--quiet"]
    if fresh:
        options.append("--no-cache")
    containerfile = str(context / "images" / "Containerfile")
    call(
        "buildah", "build", *options, *given, "--target", target, "--tag", image, "--file", containerfile, str(context)
    )
    size = sum(layer["size"] for layer in json.loads(inspect(image)["Manifest"])["layers"])
    shutil.rmtree(folder, ignore_errors=True)
    call("skopeo", "copy", "--quiet", "--dest-compress", f"containers-storage:{image}", f"dir:{folder}")
    digest = forget_builder(folder)
    call("skopeo", "copy", "--quiet", f"dir:{folder}", f"containers-storage:{image}")
    return {
        "target": target, "image": image, "digest": digest, "bytes": size, "base": base,
        "lock_sha256": lock, "commit": commit, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def inspect(image: str) -> dict[str, Any]:
    """Return what buildah knows of an image."""
    return json.loads(call("buildah", "inspect", "--type", "image", image))


def forget_builder(folder: Path) -> str:
    """Take names of the build's containers out of an image's configuration, so that a second build is the same; return its digest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    before = folder / manifest["config"]["digest"].removeprefix("sha256:")
    config = json.loads(before.read_text())
    for name in ("container", "container_config"):
        config.pop(name, None)
    config["config"].update(Hostname="", Image="")
    for step in config["history"]:
        step.pop("comment", None)  # names the image of the step before, whose configuration had such names
        step["created_by"] = re.sub(r"dir:[0-9a-f]{64}", "dir", step["created_by"])
    content = json.dumps(config, sort_keys=True).encode()
    before.unlink()
    digest = hashlib.sha256(content).hexdigest()
    (folder / digest).write_bytes(content)
    manifest["config"].update(digest=f"sha256:{digest}", size=len(content))
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))
    return f"sha256:{sha256(folder / 'manifest.json')}"


def push_image(built: dict[str, Any], registry: str) -> dict[str, Any]:
    """Push an image, as it lies in its folder, to ``REGISTRY/<target>:build-<commit>``; return it with that name."""
    pushed = f"{registry.rstrip('/')}/{built['image'].removeprefix('localhost/taxi/')}"
    secure = f"--dest-tls-verify={str(not LOCAL_REGISTRY.match(registry)).lower()}"
    call("skopeo", "copy", "--quiet", secure, f"dir:{BUILD / built['target']}", f"docker://{pushed}")
    return built | {"pushed": pushed}


def main(arguments: list[str] | None = None) -> None:
    """Build both images, and push them where a registry is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", required=True, type=checked_base, help=f"image by digest, or {MADE}")
    parser.add_argument("--registry", help="push there: localhost:5000/taxi-dev, or ECR's address")
    parser.add_argument("--fresh", action="store_true", help="take no layer from a cache")
    given = parser.parse_args(arguments)
    require_tools("buildah", "skopeo")
    if not (shutil.which("crun") or shutil.which("runc")):
        os.environ.setdefault("BUILDAH_ISOLATION", "chroot")
    commit = call("git", "rev-parse", "HEAD", cwd=ROOT)
    created = call("git", "show", "--no-patch", "--format=%cI", commit, cwd=ROOT)
    if call("git", "status", "--porcelain", "--untracked-files=no", cwd=ROOT):
        print(f"the images hold commit {commit[:12]}, without what was changed since", file=sys.stderr)
    context = lay_context(commit)
    base = make_base() if given.base == MADE else given.base
    python, wheels = ask_python(base), {sha256(wheel) for wheel in context.glob("wheels/*.whl")}
    for target in TARGETS:
        built = build_image(target, base, context, commit, created, given.fresh)
        built = push_image(built, given.registry) if given.registry else built
        bill = make_sbom(f"taxi/{target}", commit, (context / f"{target}.lock").read_text(), wheels, python)
        (BUILD / f"{target}.cdx.json").write_text(json.dumps(bill, indent=1) + "\n")
        (BUILD / f"{target}.json").write_text(json.dumps(built, indent=1) + "\n")
        print(json.dumps(built))


if __name__ == "__main__":
    main()

"""Containers without an engine: an image run as it says, with its root file system read-only and no capability, by Linux' own commands.

For machines that have root and buildah, and neither Docker nor a right to cgroups. The network is the machine's. Also a command:
``python -m images.container IMAGE --data DIR [--env NAME=VALUE]… [COMMAND…]``.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from images.build import call, inspect

# $0 root, $1 folder of /data, $2 user:group; the rest is the command. The process is the first of its namespace, as in an engine.
CONFINE = """
set -e
mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"
mount --bind "$1" "$0/data" && mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
[ ! -f "$0/etc/resolv.conf" ] || mount --bind /etc/resolv.conf "$0/etc/resolv.conf"
mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev"
root=$0 user=${2%:*} group=${2#*:}
shift 2
cd "$root"
exec chroot . setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
  sh -c 'cd /data && exec "$@"' container "$@"
"""


@dataclass(frozen=True)
class Container:
    """An image's root file system on this machine, and what its configuration says of a process in it."""

    root: Path
    config: dict[str, Any]

    def start(
        self, data: Path, *words: str, environment: dict[str, str] | None = None, **more: Any
    ) -> subprocess.Popen:
        """Start a command, or the image's own, with the folder ``data`` at /data, which belongs to the image's user from now on."""
        user = self.config["User"]
        os.chown(data, *map(int, user.split(":")))
        given = dict(pair.split("=", 1) for pair in self.config["Env"]) | (environment or {})
        confined = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONFINE)
        command = (*confined, str(self.root), str(data), user, *(words or self.config["Cmd"]))
        return subprocess.Popen(command, env=given | {"PATH": f"{given['PATH']}:/usr/sbin:/sbin"}, **more)


def stop(process: subprocess.Popen) -> None:
    """Ask what was started to end, by SIGTERM to the first process of its namespace: ``unshare``, its parent, takes no signal."""
    for first in psutil.Process(process.pid).children():
        first.terminate()


@contextmanager
def container_of(image: str) -> Iterator[Container]:
    """Give an image's root file system; take it away at the end."""
    name = call("buildah", "from", "--pull-never", image)
    try:
        yield Container(Path(call("buildah", "mount", name)), inspect(image)["Docker"]["config"])
    finally:
        call("buildah", "rm", name)


def main() -> None:
    """Run a command in an image and end as it does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("image")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    environment = dict(pair.split("=", 1) for pair in given.env)
    with container_of(given.image) as container:
        process = container.start(given.data, *given.command, environment=environment)
        signal.signal(signal.SIGTERM, lambda *_: stop(process))
        sys.exit(process.wait())


if __name__ == "__main__":
    main()

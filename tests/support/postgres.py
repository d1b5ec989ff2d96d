"""A real PostgreSQL server for tests and benchmarks, from the binaries installed on the machine."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def installed(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs; Debian keeps them off the PATH, by edition."""
    places = [*os.get_exec_path(), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    return shutil.which(name, path=os.pathsep.join(places))


def why_not() -> str | None:
    """Say why no server can be started here, or None where one can."""
    missing = [name for name in ("initdb", "pg_ctl") if not installed(name)]
    if missing:
        return f"PostgreSQL's {' and '.join(missing)} are not installed"
    if os.geteuid() == 0 and "postgres" not in {one.pw_name for one in pwd.getpwall()}:
        return "PostgreSQL refuses to run as root, and there is no user postgres"
    return None


@dataclass(frozen=True)
class Postgres:
    """One server with its data in ``folder``; ``stop`` and ``start`` it at will."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self.folder / "data", "-l", self.folder / "log", "-o", settings)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", self.folder / "data")

    def make(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-U", "postgres", "-A", "trust", "--no-sync", "-D", self.folder / "data")

    def _run(self, *words: Any) -> None:
        user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [str(installed(words[0])), *map(str, words[1:])]
        subprocess.run(command, check=True, cwd=self.folder, **user, **quiet)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Give a fresh server that runs, and stop and remove it in the end."""
    folder = Path(tempfile.mkdtemp(prefix="taxi-postgres-"))
    server = Postgres(folder, free_port())
    try:
        server.make()
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder)


def make_databases(postgres: Postgres, *names: str) -> list[str]:
    """Make empty databases on the server; return their addresses."""
    import psycopg2  # which few tests need

    connection = psycopg2.connect(host="127.0.0.1", port=postgres.port, user="postgres", dbname="postgres")
    connection.autocommit = True
    for name in names:
        connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return [f"{postgres.address.rpartition('/')[0]}/{name}" for name in names]

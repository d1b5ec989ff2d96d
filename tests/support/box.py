"""compose.yaml's containers as processes of this machine: their commands and environments, with hosts, ports and folders of a test."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from tests.support.automation import make_checkout
from tests.support.compose import ROOT, read_compose, read_env
from tests.support.nginx import HOST, Nginx, start_nginx
from tests.support.postgres import Postgres, free_port
from tests.support.serving_worlds import wait_for

PATIENCE = 900
PATH = os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path(), "/usr/sbin"])
LISTENS = {  # by service, the port that its command is told
    "postgres": "5432", "mlflow": "5000", "prefect": "4200", "worker": "8080", "metrics": "9109", "service": "8000",
    "prometheus": "9090", "grafana": "3000",
}  # fmt: skip
ENTRY_POINTS = {"prometheus": ["prometheus"]}  # of public images whose commands are options only
Translate = Callable[[str], str]


def _fast(text: str) -> str:
    return re.sub(r"scrape_interval: \d+s", "scrape_interval: 2s", text)


@dataclass
class Box:
    """The box of compose.yaml in ``place``; PostgreSQL is ``postgres``, Grafana is nowhere, since no package has it."""

    place: Path
    postgres: Postgres
    sections: dict[str, dict[str, Any]]
    more: dict[str, str]
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the images' working folder, secrets, folders and ports."""
        make_checkout(self.place / "volumes", self.sections, lean=True)  # above /data: for parameters and notebooks
        (self.place / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "team-secrets", self.place / "scripts")
        subprocess.run([self.place / "scripts" / "team-secrets", HOST], check=True, capture_output=True)
        self.given = read_env((self.place / ".env").read_text()) | self.more
        self.compose = read_compose(self.given)
        self.services: dict[str, dict[str, Any]] = self.compose["services"]
        self.ports = {name: str(free_port()) for name in LISTENS} | {"postgres": str(self.postgres.port)}
        self.hosts = {name: name for name in self.services}
        for name, service in self.services.items():
            for network in service.get("networks", {}).values():
                self.hosts[network["ipv4_address"]] = name
        self.nginx = Nginx(self.place / "nginx", free_port(), free_port())

    # --- From a container's world to this machine's.

    def folders(self, name: str) -> dict[str, Path]:
        """Return where a service's folders lie, by their names in its container."""
        found = {target: self.place / "tmp" / name / target[1:] for target in ("/tmp", "/data")}
        for mount in self.services[name].get("volumes", []):
            source, target = mount.split(":")[:2]
            here = {
                "./secrets": self.place / source,
                "./monitoring": self.place / "volumes" / source,
                "./mlflow": self.place / source,
            }
            default = ROOT / source if source.startswith("./") else self.place / "volumes" / source
            found[target] = next((path for begins, path in here.items() if source.startswith(begins)), default)
        return found

    def translate(self, name: str) -> Translate:
        """Return what turns a text of a service's container into one of this machine."""
        hosts = [(f"{host}:{LISTENS[other]}", f"127.0.0.1:{self.ports[other]}") for host, other in self.hosts.items() if other in LISTENS]  # fmt: skip
        hosts += [(host, "127.0.0.1") for host in self.hosts if host[0].isdigit()] + [("0.0.0.0", "127.0.0.1")]
        folders = {str(self.place): self.place} | self.folders(name)
        inside = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, folders))})(?![\w-])")

        def turn(text: str) -> str:
            for host, address in hosts:
                text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])", address, text)
            if name in LISTENS:
                text = re.sub(rf"(?<!\w){LISTENS[name]}(?!\w)", self.ports[name], text)
            return inside.sub(lambda named: str(folders[named[1]]), text)

        return turn

    def environment(self, name: str) -> dict[str, str]:
        """Return a container's environment: nothing of this process's but where programs are."""
        turn = self.translate(name)
        return {"PATH": PATH} | {
            key: turn(str(value)) for key, value in self.services[name].get("environment", {}).items()
        }

    # --- Up and down.

    def up(self, *without: str) -> None:
        """Start all services in the order in which they wait for each other."""
        left = {name for name, service in self.services.items() if "profiles" not in service}
        left -= {*without, "grafana"}
        while left:
            ready = [name for name in left if not {*self.services[name].get("depends_on", {})} & left]
            for name in sorted(ready):
                for other, how in self.services[name].get("depends_on", {}).items():
                    if how["condition"] == "service_healthy":
                        self.wait_until_healthy(other)
                self.start(name)
                left.remove(name)

    def start(self, name: str) -> None:
        """Start a service; one that is to end has ended well when this returns."""
        for target, path in self.folders(name).items():
            (path if target in ("/tmp", "/data", "/prometheus") else path.parent).mkdir(parents=True, exist_ok=True)
        special = {"postgres": self._set_password, "mlflow": self._start_mlflow, "nginx": self._start_nginx}
        special["prometheus"] = self._start_prometheus
        special.get(name, lambda: self._start(name))()

    def _start(self, name: str) -> None:
        service = self.services[name]
        turn = self.translate(name)
        words = [*ENTRY_POINTS.get(name, []), *(turn(str(word)) for word in service["command"])]
        if service["restart"].startswith("on-failure"):
            self.run(name, *words)
            return
        with (self.place / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                words, env=self.environment(name), cwd=self.folders(name)["/data"], stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def run(self, name: str, *words: str) -> str:
        """Run a command in a container like that of ``name`` to its end, as `docker compose run --rm` does; return what it printed."""
        folders = self.folders(name)
        folders["/tmp"].mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            words, env=self.environment(name), cwd=folders["/data"], capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def _set_password(self) -> None:
        """Have the server ask for passwords, as the image does that is given one."""
        password = self.services["postgres"]["environment"]["POSTGRES_PASSWORD"]
        engine = sql.create_engine(self.postgres.address)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER USER postgres PASSWORD '{password}'")
        engine.dispose()
        rules = self.postgres.folder / "data" / "pg_hba.conf"
        rules.write_text("host all all all scram-sha-256\n")
        self.postgres.stop("fast")
        self.postgres.start()

    def _start_mlflow(self) -> None:
        text = (ROOT / "mlflow-auth.ini").read_text(encoding="utf-8")
        (self.place / "mlflow-auth.ini").write_text(self.translate("mlflow")(text))
        self._start("mlflow")

    def _start_nginx(self) -> None:
        place = self.nginx.place
        place.mkdir()
        (place / "tls").symlink_to(self.place / "secrets" / "tls")
        ports = {"TAXI_HTTP_PORT": str(self.nginx.http_port), "TAXI_HTTPS_PORT": str(self.nginx.https_port)}
        files = {"TAXI_ACCESS_LOG": str(place / "access.log")}
        self.processes["nginx"] = start_nginx(self.nginx, self.environment("nginx") | ports | files)

    def _start_prometheus(self) -> None:
        """Start it on a copy of monitoring/ in which it asks every other second, so that a test has series soon."""
        turn, folder = self.translate("prometheus"), self.place / "volumes" / "monitoring"
        folder.mkdir(parents=True)
        for path in (ROOT / "monitoring").glob("*.yml"):
            text = path.read_text() if path.name.startswith("alerts") else _fast(turn(path.read_text()))
            (folder / path.name).write_text(text)
        self._start("prometheus")

    def is_healthy(self, name: str) -> bool:
        """Run a service's health check, as the engine does."""
        words = [self.translate(name)(str(word)) for word in self.services[name]["healthcheck"]["test"][1:]]
        if name == "nginx":
            words = [re.sub(r":80/", f":{self.nginx.http_port}/", word) for word in words]
        if name == "postgres":
            return True  # _set_password waited for it
        done = subprocess.run(words, env={"PATH": PATH}, capture_output=True, check=False, timeout=60)
        return done.returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        """Return when a service's health check passes; fail with its log if it has ended."""

        def healthy() -> bool:
            process = self.processes.get(name)
            assert process is None or process.poll() is None, f"{name} ended"
            time.sleep(0.5)
            return self.is_healthy(name)

        try:
            wait_for(healthy, f"{name}'s health", PATIENCE)
        except AssertionError as error:
            log = self.place / f"{name}.log"
            raise AssertionError(f"{error}\n{log.read_text()[-4000:] if log.exists() else ''}") from error

    def down(self) -> dict[str, int]:
        """End all, last first, and return how each ended; what does not end when asked twice is killed."""
        ended = {}
        for name, process in reversed(self.processes.items()):
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60 if name == "service" else 20)
                    break
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            ended[name] = process.wait()
        return ended

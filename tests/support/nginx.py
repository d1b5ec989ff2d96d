"""nginx with this repository's configuration, before processes of tests, with a certificate made for the occasion."""

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tests.support.postgres import free_port
from tests.support.serving_worlds import ROOT, wait_for

HOST = "taxi.localhost"
MAIN = """daemon off; {user} pid {place}/pid; error_log {place}/error.log;
events {{}}
http {{ client_body_temp_path {place}/1; proxy_temp_path {place}/2; fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4;
scgi_temp_path {place}/5; include {place}/taxi.conf; }}
"""
NGINX = shutil.which("nginx", path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin"]))


def make_certificate(folder: Path) -> None:
    """Make a certificate of a day, signed by itself, for the four names and this machine's address."""
    folder.mkdir(exist_ok=True)
    names = ",".join(f"DNS:{prefix}{HOST}" for prefix in ("", "mlflow.", "prefect.", "grafana."))
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    words += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName={names},IP:127.0.0.1"]
    files = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run([*words, *files], check=True, capture_output=True)


@dataclass(frozen=True)
class Nginx:
    """A proxy that runs, with its files in ``place``."""

    place: Path
    http_port: int
    https_port: int

    @property
    def certificate(self) -> Path:
        return self.place / "tls" / "fullchain.pem"

    @property
    def url(self) -> str:
        """Its address; the names need not be known to the machine's resolver."""
        return f"https://127.0.0.1:{self.https_port}"

    @property
    def plain_url(self) -> str:
        """Its address without TLS."""
        return f"http://127.0.0.1:{self.http_port}"

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def signal(self, name: str) -> None:
        subprocess.run([str(NGINX), *self.words, "-s", name], check=True, capture_output=True)

    @property
    def words(self) -> list[str]:
        return ["-p", str(self.place), "-c", str(self.place / "nginx.conf"), "-e", str(self.place / "error.log")]


def start_nginx(proxy: Nginx, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a proxy with this repository's configuration; its certificate lies there already."""
    template = Template((ROOT / "nginx.conf.template").read_text(encoding="utf-8"))
    (proxy.place / "taxi.conf").write_text(template.safe_substitute(variables), encoding="utf-8")
    user = "user root;" if os.geteuid() == 0 else ""
    (proxy.place / "nginx.conf").write_text(MAIN.format(place=proxy.place, user=user), encoding="utf-8")
    process = subprocess.Popen([str(NGINX), *proxy.words])
    wait_for((proxy.place / "pid").is_file, "nginx's pid", 20)
    return process


@contextmanager
def running_nginx(place: Path, **upstreams: str) -> Iterator[Nginx]:
    """Give a proxy before ``service``, ``mlflow``, ``prefect`` and ``grafana`` (host:port each; nobody, where one is not given)."""
    proxy = Nginx(place, free_port(), free_port())
    make_certificate(place / "tls")
    variables = {
        f"TAXI_{name.upper()}": upstreams.get(name, "127.0.0.1:1")
        for name in ("service", "mlflow", "prefect", "grafana")
    }
    ports = {"TAXI_HTTP_PORT": str(proxy.http_port), "TAXI_HTTPS_PORT": str(proxy.https_port)}
    files = {"TAXI_TLS": str(place / "tls"), "TAXI_ACCESS_LOG": str(place / "access.log"), "TAXI_HOST": HOST}
    process = start_nginx(proxy, variables | ports | files)
    try:
        yield proxy
    finally:
        process.terminate()
        assert process.wait(20) == 0

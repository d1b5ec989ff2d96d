"""compose.yaml: no default password, one door, and every name in it is one of a file, a command, a service or a setting that there is."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_valid_setting_names

from pipelines.cli import app
from taxi.config import API_KEYS
from taxi.environment import Environment
from taxi.operations.databases import ADMIN, ROLES
from taxi.params import load_params
from tests.support.compose import ROOT, read_compose, read_env, variables

OURS = ("taxi-jobs:", "taxi-service:")
KEYS = {  # of the Compose Specification, as far as they are used: an engine refuses a file with any other
    "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "init", "logging", "networks", "oom_score_adj",
    "ports", "profiles", "pull_policy", "read_only", "restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which scripts/team-secrets was run."""
    place = tmp_path_factory.mktemp("box")
    (place / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "team-secrets", place / "scripts")
    subprocess.run([place / "scripts" / "team-secrets", "taxi.example.org"], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module")
def compose(secrets: Path) -> dict[str, Any]:
    return read_compose(read_env((secrets / ".env").read_text()))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = compose["services"]
    return services


def words_of(service: dict[str, Any]) -> list[str]:
    return [str(word) for word in service.get("command", [])]


def commands(services: dict[str, dict[str, Any]], program: str) -> Iterator[list[str]]:
    """Yield the words after ``program`` of every command that calls it, a shell's commands too."""
    for service in services.values():
        words = words_of(service)
        if words[:1] == [program]:
            yield words[1:]
        elif words[:1] == ["sh"]:
            for part in re.split(r"&&|;", words[-1].replace(" do ", " ; ")):
                if part.split()[:1] == [program]:
                    yield part.split()[1:]


def parse(command: Any, words: list[str]) -> None:
    """Parse a command line without running it; raise where an option or a command is none."""
    while hasattr(command, "resolve_command"):
        context = command.make_context(command.name, ["--help"], resilient_parsing=True)
        _, command, words = command.resolve_command(context, words)
    command.make_context(command.name, list(words))


def source_of(package: str, module: str) -> str:
    """Return a module's text without importing it, which takes seconds."""
    found = find_spec(package)
    assert found and found.origin
    return (Path(found.origin).parent / module).read_text(encoding="utf-8")


def test_it_says_nothing_that_an_engine_does_not_know(compose: dict[str, Any]) -> None:
    checks = {key for service in compose["services"].values() for key in service.get("healthcheck", {})}

    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes", "networks"}
    assert {key for service in compose["services"].values() for key in service} == KEYS
    assert checks == {"test", "interval", "timeout", "retries", "start_period"}
    assert all(isinstance(v, str) for s in compose["services"].values() for v in s.get("environment", {}).values())


def test_its_variables_are_those_that_the_script_makes_and_no_password_has_a_default(secrets: Path) -> None:
    made, used = read_env((secrets / ".env").read_text()), variables()

    assert {name for name, kinds in used.items() if "-" in kinds} == {"TAXI_SOURCE", "TAXI_ALARM_CHANNELS", "TAXI_TAG"}
    assert {name for name, kinds in used.items() if kinds != {"-"}} == set(made)
    assert all(kinds <= {"?", "-"} for kinds in used.values()), "one that is not set must be an error"
    assert len(set(made.values())) == len(made) and all(len(secret) >= 16 for secret in made.values())
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD"):
        read_compose({name: value for name, value in made.items() if name != "POSTGRES_PASSWORD"})


def test_secrets_are_made_once_and_neither_git_nor_other_users_have_them(secrets: Path) -> None:
    again = subprocess.run([secrets / "scripts" / "team-secrets", "a.b"], capture_output=True, text=True, check=False)
    subprocess.run(["git", "init", "-q", str(secrets)], check=True)
    shutil.copy(ROOT / ".gitignore", secrets)
    kept = subprocess.run(["git", "-C", str(secrets), "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True)  # fmt: skip

    assert (again.returncode, again.stderr.count("\n")) == (2, 1) and "passwords in use" in again.stderr
    assert "secrets" not in kept.stdout.replace("scripts/team-secrets", "") and ".env" not in kept.stdout
    assert [(secrets / name).stat().st_mode & 0o777 for name in (".env", "secrets")] == [0o600, 0o700]


def test_only_nginx_publishes_ports_and_all_restart_log_little_and_gain_no_privileges(
    services: dict[str, dict[str, Any]],
) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    for name, service in services.items():
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert service["security_opt"] == ["no-new-privileges:true"] and service["read_only"] is True, name
        by_hand = "profiles" in service
        assert service["restart"] == ("no" if by_hand else service["restart"])
        assert by_hand or service["restart"] in ("unless-stopped", "on-failure:3"), name
        lasting = service["restart"] == "unless-stopped" and name != "collector"
        assert lasting == ("healthcheck" in service), name
        assert name in ("postgres", "nginx") or service["cap_drop"] == ["ALL"], name


def test_public_images_are_pinned_and_ours_are_the_two_that_are_built(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        image = service["image"]
        assert image.startswith(OURS) or re.search(r":v?\d+(\.\d+){1,2}$", image), f"{name}: {image}"
        assert image.startswith("taxi-service:") == (name == "service")
        assert image.startswith(OURS) == (service.get("pull_policy") == "never")


def test_what_is_waited_for_is_there_and_healthy_or_ends(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            ends = services[other]["restart"].startswith("on-failure")
            expected = ("service_completed_successfully",) if ends else ("service_healthy", "service_started")
            assert how["condition"] in expected, f"{name} waits for {other}"
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]


def test_every_host_and_port_is_of_a_service_that_listens_there(services: dict[str, dict[str, Any]]) -> None:
    listening = {
        name: set(re.findall(r"127\.0\.0\.1(?::|\", \"-p\", \"|, -p, )(\d+)", yaml.safe_dump(s["healthcheck"], width=999)))
        for name, s in services.items()
        if "healthcheck" in s
    }  # fmt: skip
    listening["postgres"] = {"5432"}
    hosts = {name: name for name in services}
    for name, service in services.items():
        for address in [n["ipv4_address"] for n in service.get("networks", {}).values()]:
            assert address not in hosts
            hosts[address] = name
    texts = {name: yaml.safe_dump({k: v for k, v in s.items() if k in ("command", "environment")}, width=9999) for name, s in services.items()}  # fmt: skip
    texts["prometheus"] += (ROOT / "monitoring/prometheus.team.yml").read_text()
    texts["grafana"] += (ROOT / "monitoring/grafana/provisioning/datasources/prometheus.yml").read_text()
    mentioned = [
        (by, host, port)
        for by, text in texts.items()
        for host, port in re.findall(r"(?:@|//|\"| |,|=)([a-z][a-z-]*|172\.31\.240\.\d+):(\d+)\b", text)
    ]

    assert len(mentioned) > 15
    wrong = [one for one in mentioned if one[1] not in hosts or one[2] not in listening[hosts[one[1]]]]
    assert not wrong
    (pool,) = read_compose_pool()
    assert all(not a.startswith("172") or int(a.rpartition(".")[2]) < 128 for a in hosts) and pool.endswith(".128/25")
    assert (
        services["service"]["environment"]["TAXI_PROXIES"] == services["nginx"]["networks"]["default"]["ipv4_address"]
    )


def read_compose_pool() -> list[str]:
    """Return the range from which the engine gives out addresses by itself."""
    found = yaml.safe_load((ROOT / "compose.yaml").read_text())["networks"]["default"]["ipam"]["config"]
    return [one["ip_range"] for one in found]


def test_every_file_that_is_mounted_is_in_the_repository_or_made_by_the_script(
    compose: dict[str, Any], secrets: Path
) -> None:
    for name, service in compose["services"].items():
        for mount in service.get("volumes", []):
            source, target, *mode = mount.split(":")
            if source.startswith("./"):
                assert (ROOT / source).exists() or (secrets / source).exists(), f"{name}: {source}"
                assert mode == ["ro"] and target.startswith("/"), name
            else:
                assert source in compose["volumes"], f"{name}: {source}"
        assert "configs" not in service and "secrets" not in service, "an engine writes none into a read-only root"


def test_every_command_of_ours_and_of_mlflow_parses(services: dict[str, dict[str, Any]]) -> None:
    ours, mlflows = list(commands(services, "taxi")), list(commands(services, "mlflow"))

    assert [words[0] for words in ours] == ["database", "metrics", "metrics", "serve", "status"]
    for words in ours:
        parse(typer.main.get_command(app), words)
    ((name, *words),) = mlflows
    assert name == "server"
    options = source_of("mlflow", "cli/__init__.py") + source_of("mlflow", "utils/cli_args.py")
    assert all(f'"{word.partition("=")[0]}"' in options for word in words)
    with pytest.raises(Exception, match="No such option"):
        parse(typer.main.get_command(app), ["metrics", "serve", "--hsot", "x"])


def known_names() -> set[str]:
    """Return the environment variables that taxi, nginx's template, MLflow, Prefect and the public images read."""
    taxi = {str(field.validation_alias or f"TAXI_{name.upper()}") for name, field in Environment.model_fields.items()}
    secret = {API_KEYS, ADMIN, *ROLES.values(), load_params(ROOT / "params.yaml").alarms.channels_env}
    template = set(re.findall(r"\$\{(TAXI_\w+)\}", (ROOT / "nginx.conf.template").read_text()))
    return taxi | secret | {f"{name}_FILE" for name in secret} | template | _get_valid_setting_names(PrefectSettings)


def test_every_variable_that_is_set_is_one_that_somebody_reads(services: dict[str, dict[str, Any]]) -> None:
    known, mlflows = known_names(), source_of("mlflow", "environment_variables.py")
    for name, service in services.items():
        for variable in service.get("environment", {}):
            if variable.startswith(("TAXI_", "PREFECT_")):
                assert variable in known, f"{name}: {variable}"
            elif variable.startswith("MLFLOW_") and variable != "MLFLOW_FLASK_SERVER_SECRET_KEY":
                assert variable in mlflows or variable == "MLFLOW_TRACKING_URI", variable
    template = set(re.findall(r"\$\{(\w+)\}", (ROOT / "nginx.conf.template").read_text()))
    assert template == {v for v in services["nginx"]["environment"] if v.startswith("TAXI_")}


def test_the_service_may_read_models_and_add_predictions_and_knows_no_other_password(
    services: dict[str, dict[str, Any]], secrets: Path
) -> None:
    made = read_env((secrets / ".env").read_text())

    text = yaml.safe_dump({name: services["service"][name] for name in ("environment", "command")})
    assert {name for name, value in made.items() if value in text} == {
        "TAXI_DB_PASSWORD_SERVICE",
        "MLFLOW_PASSWORD_SERVICE",
    }

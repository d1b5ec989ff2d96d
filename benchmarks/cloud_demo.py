"""Dry walk through the cloud: Terraform on moto, images in a registry, a month on S3 and PostgreSQL, a task that answers.

    python -m benchmarks.cloud_demo --place build/cloud-demo          (or: make cloud-demo)

Nobody touches anything. Each task gets command, environment and secrets exactly as Terraform's task definitions and schedules say;
only what AWS would be (its address and credentials, the database's host) is replaced. Exit 0 only if the prediction of the
service's container was traced back to the published bytes in S3. Synthetic trips; needs no network and no account.
"""

import argparse
import hashlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2

from taxi.config import TELEMETRY_OFF
from taxi.data.synthetic import write_sample
from terraform.operate import moto_server, prove
from terraform.operate.state_bucket import make_state_bucket
from terraform.operate.workspace import Terraform, copy_module
from tests.support.nginx import make_certificate
from tests.support.postgres import Postgres, free_port, running_postgres, why_not
from tests.support.serving_worlds import TRIP, wait_for

ROOT = Path(__file__).resolve().parents[1]
SERVICE, MONTHS, ROWS = "green", ["2024-01", "2024-02"], 6000
PUBLISHED = "published"  # in the store's bucket, in the place of the publisher's site
DOMAIN, VAR_FILE = "taxi.example.org", "environments/dev.tfvars"
STATE_BUCKET = "taxi-dev-state-123456789012"
BUILDAH = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
BEGUN = time.monotonic()


class Failed(Exception):
    """A step did not do what it should; the message says which."""


def say(words: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"{time.monotonic() - BEGUN:6.0f} s  {words}", flush=True)


def run(command: list[str], environment: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Run a command with no more than an environment; return its stdout, or fail with what it said."""
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(
            f"{shlex.join(command)[:200]} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


@dataclass
class Cloud:
    """What stands for AWS: moto's server, a registry of images, a PostgreSQL server with TLS."""

    address: str
    place: Path
    database: Postgres
    registry: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """Return boto3's client of one of AWS's services."""
        return moto_server.client(self.address, service)

    @property
    def credentials(self) -> dict[str, str]:
        """What a task has from AWS itself, besides its definition: where AWS is, and who the task is."""
        return moto_server.environment(self.address) | {"MLFLOW_S3_ENDPOINT_URL": self.address}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say that a step begins, and keep its seconds for the table."""
        say(name)
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


# --- What stands for AWS.


def prepare_tls(server: Postgres) -> None:
    """Have PostgreSQL refuse what RDS refuses with rds.force_ssl: connections without TLS, or without the password."""
    data = server.folder / "data"
    make_certificate(data / "tls")
    run(["chown", "-R", "--reference", str(data), str(data / "tls")])
    with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("ssl = on\nssl_cert_file = 'tls/fullchain.pem'\nssl_key_file = 'tls/privkey.pem'\n")
    (data / "pg_hba.conf").write_text(
        "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n", encoding="utf-8"
    )
    server.stop("fast")
    server.start()


def make_user(cloud: Cloud, secret: dict[str, str]) -> None:
    """Make what RDS makes: the user who may make databases, with the password of the secret, and the first database."""
    with psycopg2.connect(host=str(cloud.database.folder), port=cloud.database.port, user="postgres") as connection:
        connection.cursor().execute("CREATE ROLE taxi LOGIN CREATEDB CREATEROLE PASSWORD %s", (secret["password"],))
    connection = psycopg2.connect(host=str(cloud.database.folder), port=cloud.database.port, user="postgres")
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE mlflow OWNER taxi")
    connection.close()


@contextmanager
def running_registry(place: Path) -> Iterator[str]:
    """Start a registry of images, which stands for ECR; give its host and port."""
    address, folder = f"127.0.0.1:{free_port()}", place / "registry"
    folder.mkdir()
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}\nhttp: {{addr: '{address}'}}\n",
        encoding="utf-8",
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        wait_for(lambda: httpx.get(f"http://{address}/v2/").status_code == 200, "the registry of images", 30)
        yield address
    finally:
        process.terminate()
        process.wait()


# --- Terraform.


def terraform_of(cloud: Cloud) -> tuple[Terraform, list[str]]:
    """Initialise the module with its state in S3, and return it with the options of dev, without what moto does not have."""
    make_state_bucket(cloud.client("s3"), STATE_BUCKET, "us-east-1")
    folder = copy_module(cloud.place / "terraform")
    for name in ("backend_override.tf", *moto_server.UNKNOWN_FILES):
        (folder / name).unlink()
    terraform = Terraform(folder, moto_server.environment(cloud.address))
    terraform.init("-backend-config=environments/dev.s3.tfbackend")
    zone = moto_server.prepare(cloud.address, DOMAIN)
    source = f"s3://taxi-dev-store-123456789012/{PUBLISHED}"
    return terraform, [f"-var-file={VAR_FILE}", *moto_server.variables(zone), "-var", f"taxi_source={source}"]


def apply(terraform: Terraform, *options: str) -> None:
    """Apply, asking nobody."""
    terraform.call("apply", "-input=false", "-auto-approve", "-parallelism=20", *options)


def take_off_policies(cloud: Cloud) -> None:
    """Take the TLS-only policies off the buckets: moto has no TLS, and refuses what they refuse."""
    s3 = cloud.client("s3")
    for bucket in cloud.outputs["buckets"].values():
        s3.delete_bucket_policy(Bucket=bucket)


# --- Images.


def push_images(cloud: Cloud, base: str) -> dict[str, str]:
    """Have ``make images`` build and push both images; return their digests in the registry."""
    run(
        ["make", "--no-print-directory", "images", f"BASE={base}", f"REGISTRY={cloud.registry}/taxi-dev"],
        os.environ | BUILDAH,
    )
    built = {
        kind: json.loads((ROOT / f"build/images/{kind}.json").read_text(encoding="utf-8"))
        for kind in ("service", "jobs")
    }
    return {kind: image["digest"] for kind, image in built.items()}


# --- Tasks: containers with what Terraform's definitions say, and nothing else.


@dataclass(frozen=True)
class Task:
    """A task of a family: how its container is entered, its command, and its environment with the secrets in it."""

    family: str
    image: str
    command: list[str]
    environment: dict[str, str]


def read_secret(cloud: Cloud, value_from: str) -> str:
    """Return a secret's value as ECS does: ``arn``, or ``arn:key:stage:version`` for a key of its JSON."""
    parts = value_from.split(":")
    value = cloud.client("secretsmanager").get_secret_value(SecretId=":".join(parts[:7]))["SecretString"]
    return str(json.loads(value)[parts[7]]) if len(parts) > 7 else value


def define_task(cloud: Cloud, family: str) -> Task:
    """Read a family's newest definition as ECS would, with the database's host in the place of RDS's."""
    ecs, rds = cloud.client("ecs"), cloud.client("rds")
    given = ecs.describe_task_definition(taskDefinition=cloud.outputs["task_families"][family])["taskDefinition"]
    container = given["containerDefinitions"][0]
    endpoint = rds.describe_db_instances()["DBInstances"][0]["Endpoint"]
    host, here = f"@{endpoint['Address']}:{endpoint['Port']}/", f"@127.0.0.1:{cloud.database.port}/"
    environment = {one["name"]: one["value"].replace(host, here) for one in container["environment"]}
    environment |= {one["name"]: read_secret(cloud, one["valueFrom"]) for one in container["secrets"]}
    return Task(family, container["image"], container["command"], environment)


def scheduled_command(cloud: Cloud, name: str) -> list[str]:
    """Return the command that EventBridge Scheduler gives a job, from the schedule's own input."""
    schedule = cloud.client("scheduler").get_schedule(
        GroupName=cloud.outputs["cluster"], Name=f"{cloud.outputs['cluster']}-{name}"
    )
    (override,) = json.loads(schedule["Target"]["Input"])["containerOverrides"]
    return list(override["command"])


def end_cleanly(process: "subprocess.Popen[bytes]", patience: float = 90) -> None:
    """End a task by SIGTERM to its main process, as ECS does, and expect 0."""
    inside = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    next(one for one in inside if "python" in Path(one.cmdline()[0]).name).terminate()
    if process.wait(patience):
        raise Failed(f"expected the service's task to end with 0 after SIGTERM; got {process.returncode}")


@dataclass(frozen=True)
class Host:
    """Where tasks run: their image by buildah in a chroot, or, where there is none, the packages of this checkout."""

    cloud: Cloud
    containers: bool

    def folders(self, task: Task, shared: str) -> dict[str, Path]:
        """Return the folders that stand for a task's volumes: ``/data``, which jobs share, and ``/tmp``."""
        folders = {
            "/data": self.cloud.place / "volumes" / shared / "data",
            "/tmp": self.cloud.place / "volumes" / task.family / "tmp",
        }
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
        return folders

    def words(self, task: Task, command: list[str], shared: str) -> tuple[list[str], dict[str, str]]:
        """Return how the task's command is started, and the environment of the process that starts it."""
        folders, environment = self.folders(task, shared), task.environment | self.cloud.credentials
        if self.containers:
            volumes = [word for inside, folder in folders.items() for word in ("--volume", f"{folder}:{inside}:rw")]
            variables = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
            entered = ["buildah", "run", "--user", "1000:1000", *volumes, *variables, self.container(task), "--"]
            return [*entered, *command], os.environ | BUILDAH
        environment = {
            name: value if "://" in value else value.replace("/data", str(folders["/data"]), 1)
            for name, value in environment.items()
        }
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {"HOME": str(folders["/tmp"]), "TMPDIR": str(folders["/tmp"])} | TELEMETRY_OFF
        return [str(Path(sys.executable).parent / command[0]), *command[1:]], kept | own | environment

    def container(self, task: Task) -> str:
        """Return the working container of the task's image, which is fetched by the digest of the definition."""
        name = f"taxi-cloud-demo-{task.family}"
        if name not in run(["buildah", "containers", "--format", "{{.ContainerName}}"], os.environ | BUILDAH).split():
            digest = task.image.rpartition("@")[2]
            image = (
                f"docker://{self.cloud.registry}/taxi-dev/{'service' if task.family == 'service' else 'jobs'}@{digest}"
            )
            run(["buildah", "from", "--tls-verify=false", "--name", name, image], os.environ | BUILDAH)
        return name

    def run(self, task: Task, command: list[str], shared: str = "jobs") -> str:
        """Run a task to its end, as RunTask does; return its stdout."""
        words, environment = self.words(task, command, shared)
        return run(words, environment, self.folders(task, shared)["/tmp"])

    @contextmanager
    def serving(self, task: Task, command: list[str]) -> Iterator[Path]:
        """Keep a task running, as a service does; give its log, and end it by SIGTERM."""
        words, environment = self.words(task, command, "service")
        path = self.cloud.place / "service.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                words,
                env=environment,
                cwd=self.folders(task, "service")["/tmp"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield path
            end_cleanly(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def remove(self) -> None:
        """Remove the working containers."""
        for family in ("service", "jobs") if self.containers else ():
            subprocess.run(
                ["buildah", "rm", f"taxi-cloud-demo-{family}"],
                env=os.environ | BUILDAH,
                capture_output=True,
                check=False,
            )


# --- The walk.


def clone_with_remote(cloud: Cloud) -> Path:
    """Clone the checkout for a person, with DVC's remote in the environment's bucket."""
    clone = cloud.place / "clone"
    run(["git", "clone", "--quiet", str(ROOT), str(clone)])
    dvc = str(Path(sys.executable).parent / "dvc")
    run(
        [dvc, "remote", "add", "--quiet", "-d", "store", f"s3://{cloud.outputs['buckets']['store']}/dvc"],
        os.environ | TELEMETRY_OFF,
        clone,
    )
    return clone


def run_first_month(cloud: Cloud, jobs: Task) -> None:
    """Run the first month as a person does: in a clone with ``terraform output environment``, versioned and pushed by DVC."""
    clone = clone_with_remote(cloud)
    own = {
        "TAXI_DATA": str(clone / "data"),
        "TAXI_REPORTS": str(clone / "reports"),
        "PREFECT_HOME": str(cloud.place / "prefect"),
    }
    environment = os.environ | TELEMETRY_OFF | jobs.environment | cloud.credentials | own
    folder = Path(sys.executable).parent
    run([str(folder / "taxi"), "run", "--service", SERVICE, "--month", MONTHS[0], "--json"], environment, clone)
    run([str(folder / "dvc"), "push", "--quiet"], environment, clone)
    for made in (".dvc/cache", "data", f"reports/{SERVICE}"):
        shutil.rmtree(clone / made)
    run([str(folder / "dvc"), "pull", "--quiet"], environment, clone)


def fill_volume(cloud: Cloud, host: Host, jobs: Task) -> None:
    """Put what DVC gave back onto the jobs' volume, as a person does with DataSync or a mount."""
    data = host.folders(jobs, "jobs")["/data"]
    shutil.copytree(cloud.place / "clone" / "data", data, dirs_exist_ok=True)
    shutil.copytree(cloud.place / "clone" / "reports", data / "reports", dirs_exist_ok=True)
    run(["chmod", "-R", "a+rwX", str(data)])


def ask(cloud: Cloud, host: Host, key: str) -> dict[str, Any]:
    """Start the service's task and have it answer a trip."""
    service, port = define_task(cloud, "service"), free_port()
    command = [str(port) if word == "8000" else word for word in service.command]
    address = f"http://127.0.0.1:{port}"
    with host.serving(service, command) as log:
        try:
            wait_for(lambda: httpx.get(f"{address}/readyz").status_code == 200, "the service", 180)
        except BaseException:
            print(log.read_text(encoding="utf-8")[-3000:], file=sys.stderr)
            raise
        refused = httpx.post(f"{address}/predict", json=TRIP).status_code
        answer = httpx.post(f"{address}/predict", json=TRIP | {"trip_id": "demo-1"}, headers={"X-API-Key": key})
        if refused != 401 or answer.status_code != 200:
            raise Failed(
                f"expected 401 without a key and 200 with it; got {refused} and {answer.status_code}: {answer.text}"
            )
    return dict(answer.json())


def check_bytes(cloud: Cloud, trail: dict[str, Any]) -> list[str]:
    """Expect the digests at the end of a trail to be those of objects that lie in S3; return their addresses."""
    s3, bucket, text, published = cloud.client("s3"), cloud.outputs["buckets"]["store"], json.dumps(trail), []
    for one in s3.list_objects_v2(Bucket=bucket, Prefix=PUBLISHED)["Contents"]:
        body = s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
        if hashlib.sha256(body).hexdigest() in text:
            published.append(f"s3://{bucket}/{one['Key']}")
    if not trail["verified"] or not published:
        raise Failed(f"expected a trail that ends at bytes in s3://{bucket}/{PUBLISHED}; got {text[:3000]}")
    return published


def walk(cloud: Cloud, host: Host, base: str) -> None:
    """Go the whole way."""
    with cloud.step("state bucket, init"):
        terraform, options = terraform_of(cloud)
    if host.containers:
        with cloud.step("terraform apply: repositories; make images, pushed"):
            apply(terraform, *options, "-target=aws_ecr_repository.this")
            options += ["-var", f"image_digests={json.dumps(push_images(cloud, base))}"]
    with cloud.step("terraform apply: dev, lean"), ThreadPoolExecutor(1) as pool:
        applying = pool.submit(apply, terraform, *options)
        sample = cloud.place / "published"
        write_sample(sample, SERVICE, MONTHS, rows=ROWS)
        applying.result()
        cloud.outputs = terraform.outputs()
    with cloud.step("what a person does once: months published, secrets put, database made"):
        take_off_policies(cloud)
        for path in sorted(sample.rglob("*")):
            if path.is_file():
                key = f"{PUBLISHED}/{path.relative_to(sample).as_posix()}"
                cloud.client("s3").upload_file(str(path), cloud.outputs["buckets"]["store"], key)
        key = secrets.token_hex(16)
        for name, value in {
            "api-keys": f"name=demo;roles=predict;key={key}",
            "alarm-channels": "json://127.0.0.1:9/",
        }.items():
            cloud.client("secretsmanager").put_secret_value(
                SecretId=cloud.outputs["secret_arns"][name], SecretString=value
            )
        secret = cloud.client("secretsmanager").get_secret_value(SecretId=cloud.outputs["database_secret_arn"])
        make_user(cloud, json.loads(secret["SecretString"]))
        jobs = define_task(cloud, "jobs")
        made = "import os, psycopg2; c = psycopg2.connect(os.environ['MLFLOW_TRACKING_URI'].replace('+psycopg2', '')); c.autocommit = True; c.cursor().execute('CREATE DATABASE taxi')"
        host.run(jobs, ["python", "-c", made])
    with cloud.step(f"{MONTHS[0]} from a clone: run, pushed by DVC to S3, pulled from there"):
        run_first_month(cloud, jobs)
        fill_volume(cloud, host, jobs)
    with cloud.step(f"{MONTHS[1]} by the job as it is scheduled: {shlex.join(scheduled_command(cloud, 'arrivals'))}"):
        host.run(jobs, scheduled_command(cloud, "arrivals"))
    with cloud.step("service: its task answers a trip"):
        answer = ask(cloud, host, key)
    with cloud.step("lineage of the answer, back to bytes"):
        trail = json.loads(host.run(jobs, ["taxi", "lineage", answer["prediction_id"], "--json"]).splitlines()[-1])
        published = check_bytes(cloud, trail)
    with cloud.step("drift: nothing but the buckets' policies"):
        check_drift(terraform.plan(*options))
    where = "the images' containers" if host.containers else "this checkout's packages, not images"
    say(f"done: tasks ran from {where}; version {answer['version']} answered {answer['median_minutes']} minutes")
    print("bytes behind the answer:", *published, sep="\n  ")


def check_drift(plan: dict[str, Any]) -> None:
    """Expect that nothing differs from what Terraform says but the policies that were taken off for moto."""
    if lines := [line for line in prove.unexpected(plan) if not line.startswith("aws_s3_bucket_policy.this")]:
        raise Failed("expected no drift but the buckets' policies; got\n  " + "\n  ".join(lines))


def table(seconds: dict[str, float]) -> str:
    """Return a step's seconds a line, and their sum."""
    rows = [*seconds.items(), ("together", sum(seconds.values()))]
    return "\n".join(f"{value:8.0f}  {name}" for name, value in rows)


def main() -> int:
    """Walk from an empty account to a prediction whose bytes are known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cloud_demo", description=main.__doc__)
    parser.add_argument("--place", type=Path, required=True, help="an empty or missing folder")
    parser.add_argument(
        "--checkout", action="store_true", help="run tasks from this checkout's packages, not from images"
    )
    parser.add_argument("--base", default="debootstrap", help="base of the images, as BASE of `make images`")
    given = parser.parse_args()
    needed = ["terraform", "openssl", *([] if given.checkout else ["buildah", "docker-registry"])]
    if missing := [name for name in needed if not shutil.which(name)]:
        parser.error(f"expected {', '.join(missing)} on the PATH; --checkout needs no buildah and no docker-registry")
    if reason := why_not():
        parser.error(reason)
    place = given.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        parser.error(f"expected an empty folder; got {place}")
    with ExitStack() as stack:
        address = moto_server.start()
        database = stack.enter_context(running_postgres())
        prepare_tls(database)
        registry = None if given.checkout else stack.enter_context(running_registry(place))
        cloud = Cloud(address, place, database, registry)
        host = Host(cloud, not given.checkout)
        stack.callback(host.remove)
        try:
            walk(cloud, host, given.base)
        except Failed as error:
            print(error, file=sys.stderr)
            return 1
    print(table(cloud.seconds))
    print(f"months, reports and logs: {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

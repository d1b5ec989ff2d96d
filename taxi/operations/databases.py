"""PostgreSQL provisioning: roles, databases, tables and privileges of MLflow, Prefect, predictions and metrics; may be done again.

Passwords go to the server as SCRAM verifiers, so that its log does not hold them either.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import URL, Connection, make_url

from taxi.addresses import shown
from taxi.config import read_secret
from taxi.database import Database, open_engine, reaching
from taxi.errors import UsageError
from taxi.monitoring.metric_store import open_metrics
from taxi.predictions.store import open_store

ADMIN, WHAT = "TAXI_DB_ADMIN", "PostgreSQL server"
PROVISIONING = 7_012_026  # the number of PostgreSQL's advisory lock under which it is done
ROLES = {  # each with the variable that names its password
    "taxi_mlflow": "TAXI_DB_PASSWORD_MLFLOW",
    "taxi_prefect": "TAXI_DB_PASSWORD_PREFECT",
    "taxi_jobs": "TAXI_DB_PASSWORD_JOBS",
    "taxi_service": "TAXI_DB_PASSWORD_SERVICE",
    "taxi_reader": "TAXI_DB_PASSWORD_READER",
}


@dataclass(frozen=True)
class Owned:
    """A database: its owner, who else may connect, and the variable that names its address."""

    name: str
    owner: str
    variable: str
    guests: tuple[str, ...] = ()


DATABASES = (
    Owned("taxi_mlflow", "taxi_mlflow", "MLFLOW_TRACKING_URI", ("taxi_service", "taxi_reader")),
    Owned("taxi_prefect", "taxi_prefect", "PREFECT_API_DATABASE_CONNECTION_URL"),
    Owned("taxi_predictions", "taxi_jobs", "TAXI_PREDICTIONS", ("taxi_service", "taxi_reader")),
    Owned("taxi_metrics", "taxi_jobs", "TAXI_METRICS", ("taxi_reader",)),
)
STORES: dict[str, Callable[[str], Database]] = {"taxi_predictions": open_store, "taxi_metrics": open_metrics}
READ_ALL = (
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}",
)
GRANTS = {  # by database, as its owner; the service reads no more of predictions than its upsert needs
    "taxi_mlflow": tuple(line.format(role=role) for role in ("taxi_service", "taxi_reader") for line in READ_ALL),
    "taxi_prefect": ("CREATE EXTENSION IF NOT EXISTS pg_trgm",),
    "taxi_predictions": (
        *(line.format(role="taxi_reader") for line in READ_ALL),
        "GRANT INSERT, SELECT (service, trip_id) ON predictions TO taxi_service",
        "GRANT INSERT, UPDATE (duration, dropoff, dropoff_utc, source, received_at) ON outcomes TO taxi_service",
        "GRANT SELECT (key, service, trip_id, duration, dropoff, dropoff_utc, source, received_at) ON outcomes TO taxi_service",
        "GRANT SELECT ON alembic_version_predictions, erased TO taxi_service",
    ),
    "taxi_metrics": tuple(line.format(role="taxi_reader") for line in READ_ALL),
}


def read_passwords() -> dict[str, str]:
    """Return each role's password from the environment or the file it names; UsageError lists those that are missing."""
    given = {role: read_secret(variable).strip() for role, variable in ROLES.items()}
    if missing := [ROLES[role] for role, password in given.items() if not password]:
        raise UsageError(f"expected passwords in {', '.join(missing)}, or in files that …_FILE name; nothing was done")
    return given


def read_admin() -> URL:
    """Return the address of a user who may make roles and databases, from TAXI_DB_ADMIN or the file TAXI_DB_ADMIN_FILE."""
    if not (address := read_secret(ADMIN).strip()).startswith("postgresql"):
        raise UsageError(
            f"expected {ADMIN}, or a file that {ADMIN}_FILE names, as postgresql+psycopg2://user:password@host/postgres"
        )
    open_engine(address, WHAT, ADMIN).dispose()
    return make_url(address)


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    address = url.render_as_string(hide_password=False)
    engine = open_engine(address, WHAT, ADMIN)
    try:
        with reaching(WHAT, shown(address)), engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")
    finally:
        engine.dispose()


def _has(connection: Connection, catalogue: str, column: str, name: str) -> bool:
    return bool(connection.scalar(sql.text(f"SELECT count(*) FROM {catalogue} WHERE {column} = :name"), {"name": name}))


def _make_role(connection: Connection, role: str, password: str) -> str:
    from psycopg2.extensions import encrypt_password

    raw = connection.connection.dbapi_connection
    verifier = encrypt_password(password, role, scope=raw, algorithm="scram-sha-256")
    verb = "ALTER" if (there := _has(connection, "pg_roles", "rolname", role)) else "CREATE"
    connection.exec_driver_sql(f"{verb} ROLE {role} LOGIN PASSWORD %s", (verifier,))
    return f"role {role}: {'was there; its password is set' if there else 'made'}"


def _make_database(connection: Connection, one: Owned) -> str:
    if not connection.scalar(sql.text("SELECT pg_has_role(current_user, :role, 'MEMBER')"), {"role": one.owner}):
        connection.exec_driver_sql(
            f"GRANT {one.owner} TO CURRENT_USER"
        )  # an administrator who is no superuser needs it
    there = _has(connection, "pg_database", "datname", one.name)
    if not there:
        connection.exec_driver_sql(f"CREATE DATABASE {one.name} OWNER {one.owner} TEMPLATE template0 ENCODING 'UTF8'")
    connection.exec_driver_sql(f"REVOKE ALL ON DATABASE {one.name} FROM PUBLIC")
    for guest in one.guests:
        connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {one.name} TO {guest}")
    return f"database {one.name} of {one.owner}: {'was there' if there else 'made'}"


def _make_tables(url: URL, one: Owned) -> None:
    """Make the tables as their owner; Prefect's server makes its own when it starts."""
    from taxi.registry.mlflow_client import prepare

    address = url.render_as_string(hide_password=False)
    if one.name == "taxi_mlflow":
        prepare(address)
    if open_one := STORES.get(one.name):
        store = open_one(address)
        store.upgrade()
        store.close()


def init_databases(tables: bool = True) -> dict[str, Any]:
    """Make what is missing on the server that TAXI_DB_ADMIN names; return what was ``done`` and which addresses to ``set``.

    Without ``tables`` the databases stay empty. Raises UsageError before anything is done if a password is
    missing, StoreDown if the server does not answer or refuses.
    """
    admin, passwords = read_admin(), read_passwords()
    with _connected(admin) as connection:
        connection.execute(sql.select(sql.func.pg_advisory_lock(PROVISIONING)))
        done = [_make_role(connection, role, password) for role, password in passwords.items()]
        done += [_make_database(connection, one) for one in DATABASES]
        for one in DATABASES if tables else ():
            url = admin.set(username=one.owner, password=passwords[one.owner], database=one.name)
            _make_tables(url, one)
            with _connected(url) as owner:
                for grant in GRANTS[one.name]:
                    owner.exec_driver_sql(grant)
            done.append(f"database {one.name}: tables and privileges are as this taxi needs them")
    return {"done": done, "set": {one.variable: _address(admin, one) for one in DATABASES}}


def _address(admin: URL, one: Owned) -> str:
    """Return the database's address for its owner, with the word PASSWORD where the password goes."""
    url = admin.set(username=one.owner, password="PASSWORD", database=one.name)
    if one.owner == "taxi_prefect":  # asyncpg's name of the option is another
        query = {"ssl": url.query["sslmode"]} if "sslmode" in url.query else {}
        url = url.set(drivername="postgresql+asyncpg", query=query)
    return url.render_as_string(hide_password=False)

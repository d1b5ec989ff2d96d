"""Schema migrations of the two stores: from any edition to the newest, on SQLite and PostgreSQL, as the code's tables are."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from taxi.database import MIGRATIONS, Database, StoreDown
from taxi.monitoring.metric_store import Metric, MetricStore, open_metrics
from taxi.predictions.store import Store, open_store
from tests.support.postgres import Postgres, make_databases
from tests.support.prediction_rows import make_row

STORES: dict[type[Database], Callable[..., Database]] = {Store: open_store, MetricStore: open_metrics}


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One empty database, which both stores share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'stores.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return make_databases(server, "migrated_" + re.sub(r"\W", "_", request.node.name).lower()[:40])[0]


@pytest.mark.parametrize("kind", STORES)
def test_the_codes_edition_is_the_newest_migration(kind: type[Database]) -> None:
    script = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS / kind.folder)])

    assert script.get_current_head() == kind.edition


def test_migrations_make_the_tables_that_the_code_has_and_two_stores_share_a_database(address: str) -> None:
    for kind, open_one in STORES.items():
        open_one(address).upgrade()
        with sql.create_engine(address).connect() as connection:
            ours = {"include_name": lambda name, what, _, kind=kind: what != "table" or name in kind.tables.tables}
            context = MigrationContext.configure(connection, opts={"version_table": kind.version_table, **ours})
            assert compare_metadata(context, kind.tables) == []


def test_tables_of_today_without_an_edition_keep_their_rows(address: str) -> None:
    engine = sql.create_engine(address)
    for kind in STORES:
        kind.tables.create_all(engine)
    with engine.begin() as connection:
        values = "('month', 'green', '2024-01', 'rmse', '', 4.0, NULL, '2024-02-01 00:00:00.000000')"
        connection.execute(sql.text(f"INSERT INTO metrics VALUES {values}"))

    metrics, store = open_metrics(address, make=False), open_store(address)

    assert list(metrics.read("month")["value"]) == [4.0]
    store.write_predictions([make_row(1)])
    assert store.count() == {"predictions": 1, "outcomes": 0}
    assert {"alembic_version_metrics", "alembic_version_predictions"} <= set(sql.inspect(engine).get_table_names())


def test_a_store_newer_than_the_code_is_told_as_that_and_left_alone(address: str) -> None:
    store = open_store(address)
    store.write_predictions([make_row(1)])
    with sql.create_engine(address).begin() as connection:
        connection.execute(sql.text("UPDATE alembic_version_predictions SET version_num = '0099'"))

    for make in (True, False):
        with pytest.raises(
            StoreDown, match=r"newer than this taxi: expected tables of edition 0003 at most; they are of 0099"
        ):
            open_store(address, make).count()
    store.write_predictions([make_row(2)])  # a service that was there before goes on


def test_a_user_who_may_not_change_tables_is_told_who_must(postgres: Postgres) -> None:
    (address,) = make_databases(postgres, "not_mine")
    with sql.create_engine(address).begin() as connection:
        connection.execute(sql.text("DROP ROLE IF EXISTS nobody_here"))
        connection.execute(sql.text("CREATE ROLE nobody_here LOGIN"))

    with pytest.raises(
        StoreDown, match="did not let this user change them: run `taxi database upgrade` as their owner"
    ):
        open_store(address.replace("postgres@", "nobody_here@")).count()


def test_a_migration_that_was_killed_is_done_from_the_start(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'predictions.db'}"
    kill = "import os; from taxi.predictions.store import open_store; from alembic import op; op.create_index = lambda *a, **b: os._exit(9)"
    script = f"{kill}; open_store({address!r}).count()"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9

    assert sql.inspect(sql.create_engine(address)).get_table_names() == []
    assert open_store(address).count() == {"predictions": 0, "outcomes": 0}


def test_an_up_to_date_store_is_opened_without_alembic(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'metrics.db'}"
    metrics = open_metrics(address)
    metrics.replace([Metric("month", "green", "2024-01", "rmse", value=4.0)])
    script = f"import sys; from taxi.monitoring.metric_store import open_metrics; print(len(open_metrics({address!r}).read('month')), 'alembic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"1 False\n"


def make_second_edition(address: str) -> None:
    """Leave the prediction store as the second edition had it, with a row."""
    open_store(address).write_predictions([make_row(1)])
    with sql.create_engine(address).begin() as connection:
        connection.execute(sql.text("DROP TABLE erased"))
        connection.execute(sql.text("UPDATE alembic_version_predictions SET version_num = '0002'"))


def test_a_store_of_the_edition_before_is_no_empty_one_to_those_who_only_read(address: str) -> None:
    make_second_edition(address)

    assert open_store(address, make=False).count()["predictions"] == 1


def test_whoever_may_add_predictions_may_read_the_marks_of_erased_trips_after_an_upgrade(postgres: Postgres) -> None:
    (address,) = make_databases(postgres, "marks")
    make_second_edition(address)
    engine = sql.create_engine(address)
    with engine.begin() as connection:
        for role in ("adder", "Looker"):
            connection.execute(sql.text(f'DROP ROLE IF EXISTS "{role}"'))
            connection.execute(sql.text(f'CREATE ROLE "{role}"'))
        connection.execute(sql.text("GRANT INSERT ON predictions TO adder"))

    open_store(address).upgrade()

    asked = sql.text("SELECT has_table_privilege(:role, 'erased', 'SELECT')")
    with engine.connect() as connection:
        assert [connection.scalar(asked, {"role": role}) for role in ("adder", "Looker")] == [True, False]

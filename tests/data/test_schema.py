import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pandera.errors import SchemaError

from taxi.data.schema import (
    AT_PICKUP,
    CANONICAL,
    check_trips,
    read_published,
    read_trips,
    synthetic_mark,
    take_rows,
    to_arrow,
)
from taxi.errors import BadFile


@pytest.fixture
def publish(tmp_path, make_published):
    def write(service="green", **columns):
        path = tmp_path / "month.parquet"
        frame = make_published(service, n=50).assign(**columns)
        parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
        return path

    return write


def test_yellow_and_green_files_become_the_same_columns(publish):
    green, yellow = read_published(publish("green"), "green"), read_published(publish("yellow"), "yellow")

    assert list(green) == list(yellow)
    assert green.dtypes.equals(yellow.dtypes)
    assert yellow["trip_type"].isna().all()


def test_rows_are_numbered_as_they_stand_in_the_file(publish):
    assert read_published(publish(), "green")["row"].tolist() == list(range(50))


def test_rows_are_taken_whole_from_whichever_row_group_they_are_in(publish, tmp_path):
    table = parquet.read_table(publish())
    parquet.write_table(table, tmp_path / "groups.parquet", row_group_size=7)

    for rows in ([0, 6, 7, 21, 49], [13], []):
        assert take_rows(tmp_path / "groups.parquet", np.array(rows, dtype=np.int64)).equals(
            table.take(pa.array(rows, pa.int64()))
        )


@pytest.mark.parametrize("style", [str.lower, str.upper, str.title])
def test_the_case_of_column_names_does_not_matter(publish, style, tmp_path):
    table = parquet.read_table(publish())
    parquet.write_table(table.rename_columns([style(name) for name in table.column_names]), tmp_path / "other.parquet")

    other = read_published(tmp_path / "other.parquet", "green")

    pd.testing.assert_frame_equal(other, read_published(tmp_path / "month.parquet", "green"))


@pytest.mark.parametrize("kind", ["int32", "Int64", "float64"])
def test_ids_may_be_integers_or_doubles(publish, make_published, kind):
    ids = make_published("green", n=50)["PULocationID"]

    read = read_published(publish(PULocationID=ids.astype(kind)), "green")

    assert read["PULocationID"].tolist() == ids.tolist()


@pytest.mark.parametrize("unit", ["ms", "ns"])
def test_times_in_other_units_are_read_to_the_microsecond(publish, make_published, unit):
    pickup = make_published("green", n=50)["lpep_pickup_datetime"]

    read = read_published(publish(lpep_pickup_datetime=pickup.astype(f"datetime64[{unit}]")), "green")

    assert read["pickup"].dtype == "datetime64[us]"
    assert (read["pickup"] == pickup).all()


def test_new_columns_and_columns_of_type_null_are_tolerated(publish):
    read = read_published(publish(cbd_congestion_fee=0.75, passenger_count=None), "green")

    assert "cbd_congestion_fee" not in read
    assert read["passenger_count"].isna().all()


def test_a_refused_file_says_what_was_expected_and_what_came(publish):
    with pytest.raises(BadFile, match=r"expected a green file; its columns are those of a yellow file") as refused:
        read_published(publish("yellow"), "green")

    assert refused.value.rule == "wrong-service"


def test_a_folder_name_with_an_equals_sign_adds_no_column(tmp_path, make_trips):
    path = tmp_path / "seed=7" / "2023-03.parquet"
    path.parent.mkdir()
    parquet.write_table(to_arrow(make_trips(20)), path)

    assert list(read_trips(path)) == list(make_trips(20))


def test_kept_trips_come_back_as_they_were_written(tmp_path, make_trips):
    trips = make_trips(20)
    parquet.write_table(to_arrow(check_trips(trips)), tmp_path / "2023-03.parquet")

    pd.testing.assert_frame_equal(read_trips(tmp_path / "2023-03.parquet"), trips)


def test_several_months_are_read_in_the_order_given_with_the_columns_asked_for(tmp_path, make_trips):
    paths = [tmp_path / "2023-03.parquet", tmp_path / "2023-02.parquet"]
    for path in paths:
        parquet.write_table(to_arrow(make_trips(20, path.stem)), path)

    read = read_trips(paths, AT_PICKUP)

    assert list(read) == AT_PICKUP
    assert read["pickup"].dt.month.tolist() == [3] * 20 + [2] * 20


def test_no_months_are_no_trips():
    assert len(read_trips([])) == 0


def test_a_trip_without_duration_breaks_the_schema(make_trips):
    with pytest.raises(SchemaError):
        check_trips(make_trips(5, duration=0.0))


@pytest.mark.parametrize("changed", [{"VendorID": "2"}, {"surcharge": 1.0}], ids=["a text", "one column more"])
def test_other_columns_or_types_than_the_canonical_break_the_schema(make_trips, changed):
    with pytest.raises(SchemaError, match="expected these columns in this order"):
        CANONICAL.validate(make_trips(5).assign(**changed))


def test_a_synthetic_file_says_so(publish):
    table = parquet.read_table(publish())

    marked = table.replace_schema_metadata({"taxi.synthetic": '{"seed": 7}'})

    assert synthetic_mark(marked.schema) == {"seed": 7}
    assert synthetic_mark(table.schema) is None

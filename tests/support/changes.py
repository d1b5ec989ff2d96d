"""Changes that make a published green month wrong: functions that return a changed frame, or changed bytes."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

MONTH, HISTORY = "2023-03", ("2022-12", "2023-01", "2023-02")
PICKUP, DROPOFF = "lpep_pickup_datetime", "lpep_dropoff_datetime"
TIMES, ZONES = [PICKUP, DROPOFF], ["PULocationID", "DOLocationID"]
HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
Frame = pd.DataFrame


def zipped(raw: bytes) -> bytes:
    """Return ``raw`` as the only member of a ZIP archive."""
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("green.parquet", raw)
        return stream.getvalue()


def as_csv(raw: bytes) -> bytes:
    """Return the first rows as CSV."""
    return parquet.read_table(pa.BufferReader(raw)).slice(0, 100).to_pandas().to_csv().encode()


def zeroed(raw: bytes) -> bytes:
    """Return ``raw`` with a tenth of it, in its middle, overwritten by zeros."""
    part = len(raw) // 10
    return raw[: 4 * part] + bytes(part) + raw[5 * part :]


def dropped(name: str) -> Callable[[Frame], Frame]:
    """Return the change that leaves one column out."""
    return lambda frame: frame.drop(columns=name)


def put(names: str | list[str], value: Callable[[Frame, str], Any]) -> Callable[[Frame], Frame]:
    """Return the change that replaces columns by ``value(frame, name)``."""
    several = [names] if isinstance(names, str) else names
    return lambda frame: frame.assign(**{name: value(frame, name) for name in several})


def moved(by: Any) -> Callable[[Frame], Frame]:
    """Return the change that moves both times."""
    return put(TIMES, lambda frame, name: frame[name] + by)


def lasting(change: Callable[[pd.Series], Any]) -> Callable[[Frame], Frame]:
    """Return the change that replaces the durations."""
    return put(DROPOFF, lambda frame, name: frame[PICKUP] + change(frame[DROPOFF] - frame[PICKUP]))


def only(keep: Callable[[Frame], Any]) -> Callable[[Frame], Frame]:
    """Return the change that keeps some rows."""
    return lambda frame: frame[np.asarray(keep(frame))].reset_index(drop=True)


def renamed(**names: str) -> Callable[[Frame], Frame]:
    """Return the change that renames columns."""
    return lambda frame: frame.rename(columns=names)


def day(frame: Frame) -> pd.Series:
    """Return the day of the month of pickup."""
    return frame[PICKUP].dt.day


def tenth(frame: Frame) -> np.ndarray:
    """Mark every tenth row."""
    return np.arange(len(frame)) % 10 == 3


def of_tenth(names: str | list[str], value: Callable[[Frame, str], Any]) -> Callable[[Frame], Frame]:
    """Return the change that replaces columns in every tenth row."""
    return put(names, lambda frame, name: frame[name].where(~tenth(frame), value(frame, name)))


def of_vendor(number: int) -> Callable[[Frame], np.ndarray]:
    """Return the choice of one vendor's rows."""
    return lambda frame: (frame["VendorID"] == number).to_numpy()


def stuck(names: list[str], minutes: list[int], chosen: Callable[[Frame], np.ndarray]) -> Callable[[Frame], Frame]:
    """Return the change that lets the chosen rows' clocks show a few minutes only."""

    def change(frame: Frame) -> Frame:
        shown = pd.to_timedelta(np.resize(minutes, len(frame)), unit="min").to_numpy()
        stopped = {
            name: frame[name].dt.floor("h") + shown + (frame[name] - frame[name].dt.floor("min")) for name in names
        }
        return frame.assign(**{name: frame[name].where(~chosen(frame), times) for name, times in stopped.items()})

    return change


def followed_by(extra: Callable[[Frame], Frame]) -> Callable[[Frame], Frame]:
    """Return the change that adds rows at the end."""
    return lambda frame: pd.concat([frame, extra(frame)], ignore_index=True)


def new_vendor(frame: Frame) -> Frame:
    """Return three rows of a vendor that the month does not have, its minutes stuck on the month's number."""
    return stuck(TIMES, [int(MONTH[5:])], lambda rows: rows["VendorID"] == 9)(frame.head(3).assign(VendorID=9))


def added(frame: Frame) -> np.ndarray:
    """Mark the rows that ``followed_by`` added: those after the last that the month had."""
    return np.arange(len(frame)) >= frame.attrs["rows"]

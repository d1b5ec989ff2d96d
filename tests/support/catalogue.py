"""The ways in which a published green month can be wrong, each with the rule that must name it."""

import gzip
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tests.support.changes import (
    DAY,
    DROPOFF,
    HOUR,
    MONTH,
    PICKUP,
    TIMES,
    ZONES,
    Frame,
    added,
    as_csv,
    day,
    dropped,
    followed_by,
    lasting,
    moved,
    new_vendor,
    of_tenth,
    of_vendor,
    only,
    put,
    renamed,
    stuck,
    tenth,
    zeroed,
    zipped,
)

REQUIRED = [*TIMES, *ZONES, "VendorID", "trip_distance", "total_amount"]


@dataclass(frozen=True)
class Mutation:
    """One way to be wrong. Of ``refused`` months ``rule`` is a month rule; otherwise ``rows`` are quarantined by it."""

    name: str
    rule: str
    frame: Callable[[Frame], Frame] | None = None
    data: Callable[[bytes], bytes] | None = None
    rows: Callable[[Frame], np.ndarray] | None = None


MUTATIONS = [
    Mutation("an HTML page", "not-parquet", data=lambda raw: b"<!doctype html><title>503</title>"),
    Mutation("a pickle", "not-parquet", data=lambda raw: pickle.dumps({"rows": 1})),
    Mutation("a ZIP archive of the file", "not-parquet", data=zipped),
    Mutation("the file compressed by gzip", "not-parquet", data=gzip.compress),
    Mutation("CSV", "not-parquet", data=as_csv),
    Mutation("no bytes", "empty", data=lambda raw: b""),
    Mutation("the first half of the bytes", "truncated", data=lambda raw: raw[: len(raw) // 2]),
    Mutation("the last byte missing", "truncated", data=lambda raw: raw[:-1]),
    Mutation("Parquet's first four bytes alone", "truncated", data=lambda raw: raw[:4]),
    Mutation("a tenth of the bytes zero", "truncated", data=zeroed),
    *(Mutation(f"{name} dropped", "missing-column", dropped(name)) for name in REQUIRED),
    Mutation("passenger_count dropped", "missing-passenger_count", dropped("passenger_count")),
    Mutation("pickup time renamed", "missing-column", renamed(lpep_pickup_datetime="pickup_at")),
    Mutation("pickup zone renamed", "missing-column", renamed(PULocationID="pickup_zone")),
    Mutation("VendorID also as vendorid", "repeated-column", lambda frame: frame.assign(vendorid=frame["VendorID"])),
    Mutation(
        "yellow's columns",
        "wrong-service",
        renamed(lpep_pickup_datetime="tpep_pickup_datetime", lpep_dropoff_datetime="tpep_dropoff_datetime"),
    ),
    Mutation(
        "for-hire columns",
        "wrong-service",
        renamed(lpep_pickup_datetime="pickup_datetime", VendorID="hvfhs_license_num"),
    ),
    Mutation("times as text", "wrong-type", put(TIMES, lambda frame, name: frame[name].astype(str))),
    Mutation("times as dates", "wrong-type", put(TIMES, lambda frame, name: frame[name].dt.date)),
    Mutation("times with a zone", "wrong-type", put(TIMES, lambda frame, name: frame[name].dt.tz_localize("UTC"))),
    Mutation("times as epoch numbers", "wrong-type", put(TIMES, lambda frame, name: frame[name].astype("int64"))),
    *(
        Mutation(f"{name} as text", "wrong-type", put(name, lambda frame, name: frame[name].astype(str)))
        for name in (*ZONES, "VendorID", "trip_distance", "total_amount")
    ),
    Mutation("zones as booleans", "wrong-type", put(ZONES, lambda frame, name: frame[name] > 100)),
    Mutation("the month before", "share-out-of-month", moved(-31 * DAY)),
    Mutation("the year before", "share-out-of-month", moved(-365 * DAY)),
    Mutation(
        "all times in 1970",
        "share-out-of-month",
        put(TIMES, lambda frame, name: frame[name] - pd.Timestamp(f"{MONTH}-01") + pd.Timestamp("1970-01-01")),
    ),
    Mutation("durations in hours taken for minutes", "share-too-long", lasting(lambda span: 60 * span)),
    Mutation("durations in minutes taken for seconds", "share-too-short", lasting(lambda span: span / 60)),
    Mutation("durations doubled", "minutes-jump", lasting(lambda span: 2 * span)),
    Mutation("durations halved", "minutes-jump", lasting(lambda span: span / 2)),
    Mutation("times swapped", "share-not-positive", renamed(**dict(zip(TIMES, reversed(TIMES), strict=True)))),
    Mutation("drop-off time = pickup time", "share-not-positive", lasting(lambda span: 0 * span)),
    *(Mutation(f"times moved by {by:+d} hours", "hour-shift", moved(by * HOUR)) for by in (-5, -4, 4, 5)),
    Mutation("times moved by +12 hours", "night-share", moved(12 * HOUR)),
    Mutation(
        "a 12-hour clock without AM and PM",
        "night-share",
        put(TIMES, lambda frame, name: frame[name] - 12 * HOUR * (frame[PICKUP].dt.hour >= 12)),
    ),
    Mutation(
        "times cut to the hour", "share-collapsed-clock", put(TIMES, lambda frame, name: frame[name].dt.floor("h"))
    ),
    Mutation(
        "times cut to the day", "share-collapsed-clock", put(TIMES, lambda frame, name: frame[name].dt.floor("D"))
    ),
    Mutation("one and the same pickup", "share-collapsed-clock", put(PICKUP, lambda frame, name: frame[name].iloc[99])),
    Mutation(
        "drop-off clock of vendor 2 on quarter hours",
        "share-collapsed-clock",
        stuck([DROPOFF], [0, 15, 30, 45], of_vendor(2)),
    ),
    Mutation("pickup times all null", "share-missing-time", put(PICKUP, lambda f, n: f[n].where(f[n].isna()))),
    Mutation("0 rows", "row-count", lambda frame: frame.head(0)),
    Mutation("half the rows lost", "volume-jump", only(lambda frame: np.arange(len(frame)) % 2 == 0)),
    Mutation("90 % of the rows lost", "volume-jump", only(lambda frame: np.arange(len(frame)) % 10 == 0)),
    Mutation("rows doubled", "share-duplicate", followed_by(lambda frame: frame)),
    Mutation("rows doubled, 7 minutes apart", "volume-jump", followed_by(moved(pd.Timedelta(minutes=7)))),
    Mutation("a week lost", "missing-days", only(lambda frame: ~day(frame).between(10, 16))),
    Mutation("the second half of the month lost", "missing-days", only(lambda frame: day(frame) <= 15)),
    Mutation("every fifth day lost", "missing-days", only(lambda frame: day(frame) % 5 != 0)),
    Mutation("trips of 06-12 lost", "hours", only(lambda frame: ~frame[PICKUP].dt.hour.between(6, 11))),
    Mutation("the largest vendor lost", "vendors", only(lambda frame: ~of_vendor(2)(frame))),
    Mutation("vendors renumbered", "vendors", put("VendorID", lambda frame, name: frame[name] + 1)),
    Mutation("vendors all null", "missing-VendorID", put("VendorID", lambda frame, name: np.nan)),
    Mutation("totals all negative", "share-void", put("total_amount", lambda frame, name: -frame[name].abs() - 1)),
    Mutation("totals in cents", "median-dollars", put("total_amount", lambda frame, name: 100 * frame[name])),
    Mutation("totals all null", "missing-total_amount", put("total_amount", lambda frame, name: np.nan)),
    Mutation("distances all 0", "median-miles", put("trip_distance", lambda frame, name: 0.0)),
    Mutation("distances all null", "missing-trip_distance", put("trip_distance", lambda frame, name: np.nan)),
    Mutation("kilometres", "miles-jump", put("trip_distance", lambda frame, name: 1.609344 * frame[name])),
    Mutation("metres", "median-miles", put("trip_distance", lambda frame, name: 1609.344 * frame[name])),
    Mutation("passengers all null", "missing-passenger_count", put("passenger_count", lambda frame, name: np.nan)),
    Mutation(
        "the null block is all the month",
        "null-share",
        put(["passenger_count", "RatecodeID", "payment_type", "trip_type"], lambda frame, name: np.nan),
    ),
    Mutation("zones + 1", "pickup-zones", put(ZONES, lambda frame, name: frame[name] + 1)),
    Mutation("zones + 265", "share-unknown-zone", put(ZONES, lambda frame, name: frame[name] + 265)),
    Mutation("zones negative", "share-unknown-zone", put(ZONES, lambda frame, name: -frame[name])),
    Mutation("zones all null", "share-unknown-zone", put(ZONES, lambda frame, name: np.nan)),
    Mutation("zones between two numbers", "share-unknown-zone", put(ZONES, lambda frame, name: frame[name] + 0.5)),
    Mutation("all in one zone", "dropoff-zones", put(ZONES, lambda frame, name: 74)),
    Mutation("zones swapped", "swapped-zones", renamed(**dict(zip(ZONES, reversed(ZONES), strict=True)))),
    Mutation("vendor 1's clocks on the month", "collapsed-clock", stuck(TIMES, [3], of_vendor(1)), rows=of_vendor(1)),
    Mutation("vendor 1's pickups on :17", "collapsed-clock", stuck([PICKUP], [17], of_vendor(1)), rows=of_vendor(1)),
    Mutation(
        "vendor 1's drop-offs on 5 minutes",
        "collapsed-clock",
        stuck([DROPOFF], [1, 2, 3, 5, 8], of_vendor(1)),
        rows=of_vendor(1),
    ),
    Mutation("three rows of a new vendor on the month", "collapsed-clock", followed_by(new_vendor), rows=added),
    Mutation("a tenth without pickup", "missing-time", of_tenth(PICKUP, lambda frame, name: pd.NaT), rows=tenth),
    Mutation("a tenth without drop-off", "missing-time", of_tenth(DROPOFF, lambda frame, name: pd.NaT), rows=tenth),
    Mutation("a tenth in 2041", "out-of-month", of_tenth(TIMES, lambda f, n: f[n] + 6575 * DAY), rows=tenth),
    *(
        Mutation(f"a tenth from zone {zone}", "unknown-zone", of_tenth(ZONES[0], lambda f, n, z=zone: z), rows=tenth)
        for zone in (0, -1, 266)
    ),
    Mutation("a tenth to no zone", "unknown-zone", of_tenth(ZONES[1], lambda frame, name: np.nan), rows=tenth),
    Mutation("a tenth of voids", "void", of_tenth("total_amount", lambda f, n: -f[n].abs() - 1), rows=tenth),
    Mutation("a tenth once more", "duplicate", followed_by(lambda frame: frame[tenth(frame)]), rows=added),
    Mutation("a tenth backwards", "not-positive", of_tenth(DROPOFF, lambda f, n: f[PICKUP] - HOUR), rows=tenth),
    Mutation(
        "a tenth of half a minute",
        "too-short",
        of_tenth(DROPOFF, lambda frame, name: frame[PICKUP] + pd.Timedelta(seconds=30)),
        rows=tenth,
    ),
    Mutation(
        "a tenth with the meter left on", "too-long", of_tenth(DROPOFF, lambda f, n: f[n] + 23 * HOUR), rows=tenth
    ),
]

"""The publisher's layout of a month, by its edition."""

import pyarrow as arrow

_MONEY = ("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount")
_LAYOUT = {
    "green": ("VendorID", "lpep_pickup_datetime", "lpep_dropoff_datetime", "store_and_fwd_flag", "RatecodeID", "PULocationID",
              "DOLocationID", "passenger_count", "trip_distance", *_MONEY, "ehail_fee", "improvement_surcharge",
              "total_amount", "payment_type", "trip_type", "congestion_surcharge"),
    "yellow": ("VendorID", "tpep_pickup_datetime", "tpep_dropoff_datetime", "passenger_count", "trip_distance", "RatecodeID",
               "store_and_fwd_flag", "PULocationID", "DOLocationID", "payment_type", *_MONEY, "improvement_surcharge",
               "total_amount", "congestion_surcharge", "airport_fee"),
}  # fmt: skip


def published_schema(service: str, month: str) -> arrow.Schema:
    """Return the columns and types of the edition of that month: to 2023-01, from 2023-02, from 2025-01."""
    new = month >= "2023-02"
    identity, counted = (arrow.int32(), arrow.int64()) if new else (arrow.int64(), arrow.float64())
    kinds = dict.fromkeys(("VendorID", "PULocationID", "DOLocationID"), identity)
    kinds |= dict.fromkeys(("RatecodeID", "passenger_count", "payment_type", "trip_type"), counted)
    kinds["store_and_fwd_flag"] = arrow.large_string() if new else arrow.string()
    kinds["ehail_fee"] = arrow.float64() if new else arrow.null()
    names = [("Airport_fee" if new and name == "airport_fee" else name) for name in _LAYOUT[service]]
    names += ["cbd_congestion_fee"] if month >= "2025-01" else []
    clock = arrow.timestamp("us")
    return arrow.schema(
        [(name, clock if name.endswith("datetime") else kinds.get(name, arrow.float64())) for name in names]
    )

"""A hundred and more bodies that are not a trip: none may be accepted, echoed, or answered by anything but a clear 4xx."""

import gzip
import json
from typing import Any

GOOD: dict[str, Any] = {"PULocationID": 74, "DOLocationID": 138, "pickup_datetime": "2024-02-06T08:15:00"}
MARK = "zq7x"  # stands in bodies where a caller's words could be repeated


def _with(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def _raw(field: str, text: str) -> bytes:
    """Return the good trip with a field whose value is written as given, be it JSON or not."""
    others = {name: value for name, value in GOOD.items() if name != field}
    return (json.dumps(others)[:-1] + f', "{field}": {text}}}').encode()


NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1e400",
    "9" * 400,
    "-" + "9" * 5000,
    "1" + "0" * 308,
    "0x10",
    "01",
    "1.",
    ".5",
    "+1",
    "1_000",
]
WRONG_ZONES = [
    0,
    -1,
    266,
    1000,
    2**31,
    2**63,
    2**64,
    -(2**63),
    True,
    False,
    74.5,
    "74",
    None,
    [],
    {},
    [74],
    {"id": 74},
    "",
    "Astoria",
    MARK,
]
WRONG_TIMES = [
    "1900-01-01T00:00:00", "2200-01-01T00:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59", "2008-12-31T23:59:59", "2100-01-01T00:00:00",
    "2023-02-29T00:00:00", "2023-13-01T00:00:00", "2023-00-10T00:00:00", "2023-04-31T00:00:00", "2023-04-01T24:00:00", "2023-04-01T12:60:00",
    "2023-04-01", "12:00", "now", "", " ", "2023-04-01T12:00:00+99:00", "2023-04-01T12:00:00 ", "2023-04-01T12:00:00\n", "٢٠٢٣-04-01T12:00:00",
    "2023-W13-6T12:00:00", "20230401T120000", "1680350400", 1680350400, 1680350400.5, True, [], {}, MARK, "2023-04-01T12:00:00Europe/Paris",
]  # fmt: skip
WRONG_OPTIONS = [
    ("passenger_count", [-1, 10, 2**70, 1.5, "1", True, [1], MARK]),
    ("trip_type", [0, 3, True, "1", 1.5, {}]),
    ("vendor", [0, 21, -5, False, "2"]),
    ("planned_distance_miles", [0, -1, 301, 1e300, "3", True, []]),
    (
        "trip_id",
        [
            "",
            "x" * 129,
            "a b",
            "a\u0000b",
            "ä",
            "\U0001f695",
            7,
            True,
            [],
            f"{MARK} {MARK}",
            "'; DROP TABLE predictions;--",
        ],
    ),
]
TEXTS = [
    b"", b" ", b"null", b"true", b"0", b"74", b'"trip"', b"[]", b"{}", b"[{}]", b"{", b"}", b"{]", b'{"PULocationID"', b"\x00", b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf" + _with(), b"\x80\x04N.", b"PULocationID=74&DOLocationID=138", b"<trip/>", _with() + b"x", _with() + _with(), _with()[:-1],
    _with().replace(b'"', b"'"), b"[" * 100_000, b'{"a":' * 50_000, gzip.compress(_with()), _with().decode().encode("utf-16"),
    b'{"trips": []}', b'{"trips": {}}', b'{"trips": null}', b'{"trips": [null]}', b'{"trips": "' + MARK.encode() + b'"}', b'{"trips": [[]]}',
    json.dumps({"trips": [GOOD] * 1001}).encode(), json.dumps({"trips": [GOOD], "more": 1}).encode(), json.dumps([GOOD]).encode(),
    json.dumps({"trips": [GOOD, GOOD | {"DOLocationID": 999}]}).encode(), json.dumps({"trips": [{"trips": [GOOD]}]}).encode(),
    b'{"PULocationID": 74, "DOLocationID": 138, "trip_id": "\\ud800"}', b'{"PULocationID": 74, "DOLocationID": 138, "trip_id": "\xed\xa0\x80"}',
    b'{"PULocationID": 74, "DOLocationID": 138, "\\ud800": 1}', b'{"PULocationID": 74, "DOLocationID": 138, "trip_id": "\\x"}',
    _with(**{MARK: 1}), _with(**{f"<script>{MARK}</script>": 1}), _with(dropoff_datetime="2024-02-06T08:30:00"), _with(__proto__={}), _with(pulocationid=74),
    json.dumps({"PULocationID": 74}).encode(), json.dumps({"DOLocationID": 74}).encode(), json.dumps({"pickup_datetime": MARK}).encode(),
]  # fmt: skip
BODIES: list[bytes] = [
    *TEXTS,
    *(_raw(field, text) for field in ("PULocationID", "planned_distance_miles") for text in NUMBERS),
    *(_with(**{field: value}) for field in ("PULocationID", "DOLocationID") for value in WRONG_ZONES),
    *(_with(pickup_datetime=value) for value in WRONG_TIMES),
    *(_with(**{field: value}) for field, values in WRONG_OPTIONS for value in values),
]
OUTCOMES: list[bytes] = [
    json.dumps(one).encode()
    for one in (
        {}, {"trip_id": "a"}, {"duration_minutes": 3}, {"trip_id": "a", "prediction_id": "b", "duration_minutes": 3}, {"outcomes": []},
        {"trip_id": "a", "duration_minutes": 3, "dropoff_datetime": "2024-01-01T00:00:00"}, {"trip_id": "a", "duration_minutes": 0},
        {"trip_id": "a", "duration_minutes": -3}, {"trip_id": "a", "duration_minutes": 1e9}, {"trip_id": "a", "duration_minutes": True},
        {"trip_id": "a", "duration_minutes": "3"}, {"trip_id": "a", "dropoff_datetime": "1900-01-01T00:00:00"}, {"trip_id": MARK + " ", "duration_minutes": 3},
        {"outcomes": [{"trip_id": "a", "duration_minutes": 3}] * 1001}, {"outcomes": [None]}, {"trip_id": "a", "duration_minutes": 3, MARK: 1},
    )
]  # fmt: skip

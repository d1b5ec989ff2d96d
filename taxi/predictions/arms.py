"""Assignment of a trip to an experiment's arm by a hash of its id, so that no table is kept and a restart changes nothing."""

import hashlib

import pandas as pd

from taxi.params import CleanParams

BITS = 64


def assign(trip_id: str, salt: str, share: float) -> bool:
    """Return True if the challenger answers the trip; ``share`` (of 1) of all ids are the challenger's.

    The same id, salt and share give the same arm in every process and on every machine. A larger share moves ids from the
    champion to the challenger and never back; another ``salt`` (1 to 64 bytes) deals all ids anew. The hash is BLAKE2b keyed
    with the salt (RFC 7693), read as a number from 0 to 1.
    """
    digest = hashlib.blake2b(
        trip_id.encode("utf-8", "surrogatepass"), key=salt.encode("utf-8"), digest_size=BITS // 8
    ).digest()
    return int.from_bytes(digest) < int(share * 2**BITS)


ARMS = ("champion", "challenger")
SHADOW = "-shadow"  # ends the prediction_id of a prediction in the shadow; before it stands the answer's


def with_known_duration(rows: pd.DataFrame, clean: CleanParams) -> pd.DataFrame:
    """Return the rows whose outcome came and is of a length that models are judged by (minutes)."""
    return rows[rows["duration"].between(clean.min_minutes, clean.max_minutes)]

"""A matrix of features, made column by column, on every core where there are many rows."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from taxi.history import Found

MANY = 10_000  # rows; the columns of fewer are not worth threads


def _fill(column: np.ndarray, part: np.ndarray | Found) -> None:
    if not isinstance(part, tuple):
        column[:] = part
    elif part[0].dtype == column.dtype:  # every place is within: "clip" only spares numpy a buffer
        np.take(*part, out=column, mode="clip")
    else:
        column[:] = part[0][part[1]]


def matrix_of(parts: Iterable[np.ndarray | Found], rows: int, width: int) -> np.ndarray:
    """Return a float32 matrix, shape (rows, width), of columns that are values, or a table and the place of every row in it.

    It lies column by column in memory: twice as fast to make as row by row.
    """
    columns = np.empty((width, rows), dtype=np.float32)
    if rows < MANY:
        for column, part in zip(columns, parts, strict=True):
            _fill(column, part)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter while it copies
            list(pool.map(_fill, columns, parts))
    return columns.T

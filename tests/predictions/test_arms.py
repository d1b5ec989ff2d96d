"""A trip keeps its arm: over restarts, over machines, and while the challenger's share grows."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from taxi.predictions.arms import assign

IDS = [f"trip-{number}" for number in range(100_000)]


def arms(salt: str, share: float, ids: list[str] = IDS) -> np.ndarray:
    return np.array([assign(trip, salt, share) for trip in ids])


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_100_000_ids_fall_within_half_a_point_of_the_share(share: float) -> None:
    assert abs(arms("first", share).mean() - share) < 0.005


def test_ids_that_differ_little_are_dealt_like_any_others() -> None:
    counted = arms("first", 0.5, [f"{number:012d}" for number in range(100_000)])

    assert abs(counted.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(counted[:-1], counted[1:])[0, 1]) < 0.01


@pytest.mark.slow
def test_another_process_deals_the_same_arms() -> None:
    code = "from taxi.predictions.arms import assign; print([assign(f'trip-{n}', 'first', 0.3) for n in range(2000)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }

    assert said == {str(arms("first", 0.3, IDS[:2000]).tolist())}


def test_the_arms_of_known_ids_never_change() -> None:
    """Written down once: another hash, or another way to read it, would deal live trips anew."""
    dealt = "".join("01"[assign(trip, "first", 0.5)] for trip in IDS[:64])

    assert dealt == "0110100001011111010001010011110100110100010011101100000010010000"


def test_a_growing_share_moves_ids_to_the_challenger_and_none_back() -> None:
    shares = [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0]
    dealt = [arms("first", share, IDS[:20_000]) for share in shares]

    for smaller, larger in itertools.pairwise(dealt):
        assert not (smaller & ~larger).any()
        assert (larger & ~smaller).any()


def test_no_share_is_nobody_and_all_of_it_everybody() -> None:
    assert not arms("first", 0.0).any()
    assert arms("first", 1.0).all()


def test_another_salt_deals_anew() -> None:
    agree = (arms("first", 0.5) == arms("second", 0.5)).mean()

    assert abs(agree - 0.5) < 0.01


def test_salt_and_id_are_not_run_together() -> None:
    assert (arms("a", 0.5, [f"b{i}" for i in range(200)]) != arms("ab", 0.5, [str(i) for i in range(200)])).any()


def test_any_text_has_an_arm() -> None:
    assert assign("\ud800", "first", 1.0)

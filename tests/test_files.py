"""Files are either there whole or not there."""

import errno
import json
import math
import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from taxi import files
from taxi.files import (
    Damaged,
    NoRoom,
    append_json,
    log_parts,
    read_json,
    read_kept,
    read_model,
    read_yaml,
    remove_staging,
    sha256_tree,
    staged,
    write_json,
)


def test_a_block_that_raises_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    with pytest.raises(RuntimeError), staged(target) as part:
        part.write_text("half")
        raise RuntimeError

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "model"
    for content in ("one", "two"):
        with staged(target) as part:
            part.mkdir()
            (part / content).write_text(content)

    assert [p.name for p in target.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_dead_process_left_is_removed_and_a_live_ones_is_kept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".a.part-{dead.pid}-1234.txt").write_text("")
    with staged(tmp_path / "b.txt") as mine:
        mine.write_text("")
        assert len(remove_staging(tmp_path)) == 1
        assert mine.exists()


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"x": [1, 2]})
    assert read_json(tmp_path / "new" / "a.json") == {"x": [1, 2]}


DAMAGED = [b'{"service": "gre', b"", b"\xff\xfe{}", b"[" * 100_000, b"\x00" * 40, b"nothing of the kind"]


@pytest.mark.parametrize("content", DAMAGED, ids=["truncated", "empty", "UTF-16", "deep", "zeros", "text"])
def test_a_file_that_is_no_json_is_named_with_what_to_do(content, tmp_path):
    path = tmp_path / "month.json"
    path.write_bytes(content)

    for read in (
        read_json,
        lambda path: read_model(path, dict[str, Any], "a result", "Remove it and run the month again"),
    ):
        with pytest.raises(Damaged, match=r"as JSON at|expected JSON at") as said:
            read(path)
        assert str(path) in str(said.value)
        assert "\n" not in str(said.value) and len(str(said.value)) < 400 + len(str(path))


@pytest.mark.parametrize(
    "content", [b"<<<<<<< HEAD\na: 1\n=======\na: 2\n", b"a: [1", b"a: 2026-13-45", b"\xff\xfea", b"a: " + b"[" * 5000]
)
def test_a_file_that_is_no_yaml_is_named(content, tmp_path):
    path = tmp_path / "published.yaml"
    path.write_bytes(content)

    with pytest.raises(Damaged, match=rf"expected YAML at {path}") as said:
        read_yaml(path)

    assert "\n" not in str(said.value)


@pytest.mark.parametrize("content", [*DAMAGED, b"[1]", b"7"])
def test_what_is_kept_to_save_work_is_made_anew_where_it_is_damaged(content, tmp_path, caplog):
    (tmp_path / "kept.json").write_bytes(content)

    assert read_kept(tmp_path / "kept.json") == read_kept(tmp_path / "none.json") == {}
    assert content in (b"[1]", b"7") or str(tmp_path / "kept.json") in caplog.text


def test_the_tree_hash_knows_names_and_bytes(tmp_path):
    (tmp_path / "a").write_text("1")
    before = sha256_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert sha256_tree(tmp_path) != before


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space left on its disk"),
        (errno.EDQUOT, "the quota of its disk is used up"),
        (errno.EFBIG, r"the largest size that a file may have here \(ulimit -f\) is reached"),
    ],
)
def test_a_file_for_which_there_is_no_room_is_named_and_nothing_is_left(number, said, tmp_path):
    target = tmp_path / "data" / "trips.parquet"

    with (
        pytest.raises(NoRoom, match=rf"cannot write {target}: {said}; make room and run again"),
        staged(target) as part,
    ):
        part.write_text("half")
        raise OSError(number, os.strerror(number))

    assert list(target.parent.iterdir()) == []


def test_another_failure_to_write_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError), staged(tmp_path / "a") as part:
        raise PermissionError(errno.EACCES, "Permission denied", str(part))


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as parquet
from taxi.data.source import open_source
from taxi.files import NoRoom, append_json, staged, write_json
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
(folder / "source").mkdir()
(folder / "source" / "large").write_bytes(bytes(100_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
def table():
    with staged(folder / "trips.parquet") as part:
        parquet.write_table(pa.table({"a": np.random.default_rng(1).random(100_000)}), part)
for write in (
    table,
    lambda: write_json(folder / "month.json", ["x" * 99_000]),
    lambda: append_json(folder / "alarms.jsonl", ["x" * 99_000]),
    lambda: open_source(str(folder / "source")).bring("large", folder / "raw", lambda done, total: None),
):
    try:
        write()
    except NoRoom as error:
        print(error)
"""


def test_a_file_size_limit_is_not_blamed_on_the_source_and_names_the_file(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False)

    named = ["trips.parquet", "month.json", "alarms.jsonl", "raw"]
    lines = done.stdout.splitlines()
    assert [line.partition(": the largest size")[0] for line in lines] == [
        f"cannot write {tmp_path / name}" for name in named
    ], done
    assert not [path for path in tmp_path.iterdir() if path.name in ("trips.parquet", "month.json", "raw")]


def append_many(path: Path, first: int) -> None:
    for number in range(first, first + 50):
        append_json(path, [{"number": number}])


def test_a_log_is_put_aside_when_it_is_full_and_who_appends_meanwhile_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOG_BYTES", 200)
    path, forking = tmp_path / "alarms.jsonl", get_context("fork")
    several = [forking.Process(target=append_many, args=(path, 50 * n)) for n in range(4)]
    for process in several:
        process.start()
    for process in several:
        process.join(60)

    parts = log_parts(path)
    assert len(parts) > 5 and max(part.stat().st_size for part in parts) < 400
    numbers = [json.loads(line)["number"] for part in parts for line in part.read_text().splitlines()]
    assert sorted(numbers) == list(range(200))
    assert [n for n in numbers if n < 50] == list(range(50)), "in the order of their time, over all files"


def test_a_line_that_a_killed_process_left_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text('{"at": 1}\n{"at"')

    append_json(path, [{"at": 2}])

    assert path.read_text().splitlines() == ['{"at": 1}', '{"at"', '{"at": 2}']

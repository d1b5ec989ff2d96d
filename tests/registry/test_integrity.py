"""A model is inert files, each byte as recorded at registration; whatever is not is refused before anything is parsed."""

import gzip
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from taxi.models.fitting import fit_model
from taxi.models.model import DurationModel, load_model, save_model
from taxi.params import load_params
from taxi.registry.golden import check_golden, choose_golden, golden_trips, read_golden, write_golden
from taxi.registry.integrity import (
    MODEL_NAME,
    WRAPPED_NAME,
    UnsafeModel,
    check_model_folder,
    check_names,
    check_registered_folder,
    flavour_fault,
    model_part,
    name_fault,
    read_manifest,
    write_manifest,
)
from taxi.unpacking import MOST_BYTES, content_fault
from tests.support.registered import make_month, make_zones

MLMODEL = """flavors:
  python_function:
    code: null
    data: data/winner
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: taxi.pyfunc
    python_version: 3.11.7
mlflow_version: 3.17.2
"""
PICKLE = pickle.dumps({"a": print})


@pytest.fixture(scope="module")
def model() -> DurationModel:
    params = load_params()
    quick = params.model.model_copy(update={"rounds": 3, "head_rounds": 2, "interval_rounds": 3, "max_depth": 3})
    return fit_model(make_month("2023-01"), make_zones(), quick, params.features)


@pytest.fixture
def folder(model: DurationModel, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def registered(folder: Path, tmp_path: Path) -> Path:
    made = tmp_path / "registered"
    shutil.copytree(folder, made / "data" / "winner")
    (made / "MLmodel").write_text(MLMODEL)
    for name in ("conda.yaml", "python_env.yaml", "requirements.txt"):
        (made / name).write_text("numpy\n")
    return made


def test_a_folder_as_recorded_is_let_through(folder):
    check_model_folder(folder, read_manifest(write_manifest(folder)))


def test_the_folder_that_mlflow_keeps_is_let_through_and_names_the_models_own_part(registered, folder):
    manifest = read_manifest(write_manifest(registered))

    check_registered_folder(registered, manifest)

    assert model_part(manifest) == ("data/winner", read_manifest(write_manifest(folder)))


@pytest.mark.parametrize("name", ["recipe.json", "tables.npz", "zones.parquet", "mean.ubj", "trees.npz"])
def test_one_changed_byte_is_named(folder, name):
    manifest = read_manifest(write_manifest(folder))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(UnsafeModel, match=f"'{name}' has sha256 .* was recorded at registration"):
        check_model_folder(folder, manifest)


def test_another_size_is_named_before_anything_is_hashed(folder):
    manifest = read_manifest(write_manifest(folder))
    with open(folder / "mean.ubj", "ab") as stream:
        stream.write(b" ")

    with pytest.raises(UnsafeModel, match=r"'mean\.ubj' has [\d,]+ bytes; [\d,]+ were recorded"):
        check_model_folder(folder, manifest)


def test_a_file_that_was_not_recorded_is_named(folder):
    manifest = read_manifest(write_manifest(folder))
    (folder / "other.ubj").write_bytes(b"{}")

    with pytest.raises(UnsafeModel, match=r"there is also \['other.ubj'\]"):
        check_model_folder(folder, manifest)


def test_a_file_that_is_gone_is_named(folder):
    manifest = read_manifest(write_manifest(folder))
    (folder / "mean.ubj").unlink()

    with pytest.raises(UnsafeModel, match=r"missing is \['mean.ubj'\]"):
        check_model_folder(folder, manifest)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../recipe.json", "leads out"),
        ("planned/../../recipe.json", "leads out"),
        ("/etc/passwd", "leads out"),
        ("..\\recipe.json", "leads out"),
        ("code/__init__.py", "is code"),
        ("model.pkl", "is a pickle by its name"),
        ("model.pkl.gz", "is a pickle by its name"),
        ("mean.joblib", "is a pickle by its name"),
        ("hook.py", "is not one of the files"),
        ("data/winner/recipe.json", "is not one of the files"),
        ("planned/planned/recipe.json", "is not one of the files"),
        ("recipe.json\n", "is not one of the files"),
        ("MEAN.UBJ", "is not one of the files"),
    ],
)
def test_a_name_that_no_model_has_is_refused_even_where_it_was_recorded(folder, name, said):
    manifest = read_manifest(write_manifest(folder))
    manifest[name] = manifest["recipe.json"]

    with pytest.raises(UnsafeModel, match=said):
        check_names(manifest, manifest)


@pytest.mark.parametrize(
    "name", ["code/taxi/pyfunc.py", "data/winner/code/a.py", "data/other/recipe.json", "sub/MLmodel"]
)
def test_a_registered_folder_has_no_other_names_either(name):
    assert name_fault(name, WRAPPED_NAME)


@pytest.mark.parametrize(
    "name", ["recipe.json", "planned/recipe.json", "planned/mean.ubj", "tables.npz", "planned/trees.npz"]
)
def test_a_models_own_names_are_allowed(name):
    assert name_fault(name, MODEL_NAME) is None


def test_a_link_to_a_file_is_refused_even_if_its_bytes_are_right(folder, tmp_path):
    manifest = read_manifest(write_manifest(folder))
    (folder / "mean.ubj").rename(tmp_path / "mean.ubj")
    (folder / "mean.ubj").symlink_to(tmp_path / "mean.ubj")

    with pytest.raises(UnsafeModel, match=r"'mean\.ubj' is a symbolic link"):
        check_model_folder(folder, manifest)


def test_a_link_to_a_folder_is_refused(folder, tmp_path):
    manifest = read_manifest(write_manifest(folder))
    (folder / "planned").rename(tmp_path / "planned")
    (folder / "planned").symlink_to(tmp_path / "planned")

    with pytest.raises(UnsafeModel, match="'planned' is a symbolic link"):
        check_model_folder(folder, manifest)


@pytest.mark.parametrize("name", ["recipe.json", "tables.npz", "zones.parquet", "mean.ubj", "trees.npz"])
@pytest.mark.parametrize(
    ("content", "kind"), [(PICKLE, "a pickle"), (gzip.compress(PICKLE), "gzip")], ids=["plain", "gzip"]
)
def test_a_pickle_under_an_allowed_name_is_refused_even_where_it_was_recorded(folder, name, content, kind):
    (folder / name).write_bytes(content)

    with pytest.raises(UnsafeModel, match=f"'{name}' is not a .* file: it begins as {kind}"):
        check_model_folder(folder, read_manifest(write_manifest(folder)))


def test_an_array_of_objects_is_refused_since_it_would_need_pickle(folder):
    np.savez(folder / "tables.npz", plain=np.arange(3), odd=np.array([print], dtype=object))

    with pytest.raises(UnsafeModel, match=r"'tables\.npz' holds 'odd\.npy', which is not a plain array"):
        check_model_folder(folder, read_manifest(write_manifest(folder)))


def test_a_pickle_inside_of_an_archive_is_refused(folder):
    with zipfile.ZipFile(folder / "tables.npz", "w") as archive:
        archive.writestr("model.pkl", PICKLE)

    with pytest.raises(UnsafeModel, match="which is not a plain array"):
        check_model_folder(folder, read_manifest(write_manifest(folder)))


def test_a_pickle_that_calls_itself_an_array_is_refused(folder):
    with zipfile.ZipFile(folder / "tables.npz", "w") as archive:
        archive.writestr("model.npy", PICKLE)

    with pytest.raises(UnsafeModel, match=r"'tables\.npz' is not a \.npz file"):
        check_model_folder(folder, read_manifest(write_manifest(folder)))


def test_an_archive_that_unpacks_to_more_than_memory_should_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(MOST_BYTES, ".npz", 1000)
    np.savez_compressed(tmp_path / "tables.npz", a=np.zeros(1000))

    assert (tmp_path / "tables.npz").stat().st_size < 1000
    assert "unpacks to 8," in content_fault(tmp_path / "tables.npz")


def tampered(registered: Path, old: str, new: str) -> None:
    text = (registered / "MLmodel").read_text()
    assert old in text
    (registered / "MLmodel").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("loader_module: taxi.pyfunc", "loader_module: os", "has loader_module 'os'; expected 'taxi.pyfunc'"),
        ("code: null", "code: code", "has code 'code'; expected None"),
        ("data: data/winner", "data: ../elsewhere", "has data '../elsewhere'; expected 'data/winner'"),
        ("flavors:", "flavors:\n  sklearn: {pickled_model: model.pkl}", r"names the flavours \['sklearn'\]"),
        ("    code: null", "    code: null\n    model_code_path: x.py", "has an odd python_function"),
        ("mlflow_version", "model_code_path: x.py\nmlflow_version", r"has entries that no model of ours has"),
        ("3.17.2", "!!python/object/apply:os.system [id]", "cannot be read"),
        ("flavors:", "flavours:", "names no flavours"),
    ],
)  # fmt: skip
def test_a_registered_model_that_asks_for_code_is_refused_even_where_it_was_recorded(registered, old, new, said):
    tampered(registered, old, new)

    with pytest.raises(UnsafeModel, match=f"'MLmodel' {said}"):
        check_registered_folder(registered, read_manifest(write_manifest(registered)))


def test_a_changed_mlmodel_is_refused_by_its_digest_before_it_is_read(registered):
    manifest = read_manifest(write_manifest(registered))
    tampered(registered, "taxi.pyfunc", "evil.pyfunc")

    with pytest.raises(UnsafeModel, match="'MLmodel' has sha256"):
        check_registered_folder(registered, manifest)


def test_an_mlmodel_that_is_gone_is_a_fault(tmp_path):
    assert "cannot be read" in flavour_fault(tmp_path / "MLmodel", "data/winner")


@pytest.mark.parametrize("text", [None, "", "[]", '{"a": 1}', '{"a": {"size": -1, "sha256": "00"}}', "not json"])
def test_a_version_without_a_manifest_is_refused(text):
    with pytest.raises(UnsafeModel, match="manifest"):
        read_manifest(text)


def test_an_empty_manifest_describes_no_model(tmp_path):
    with pytest.raises(UnsafeModel, match="missing is"):
        check_model_folder(tmp_path, {})


def test_golden_trips_are_spread_over_the_month_and_few():
    trips = make_month("2023-02")

    chosen = choose_golden(trips)

    assert len(chosen) == 16
    assert chosen["pickup"].iloc[[0, -1]].tolist() == trips["pickup"].iloc[[0, -1]].tolist()
    assert len(choose_golden(trips[:3])) == 3
    assert len(choose_golden(trips[:0])) == 0


def test_a_model_that_was_saved_and_loaded_answers_the_golden_trips_as_before(model, folder):
    golden = read_golden(write_golden(model, make_month("2023-02")))

    check_golden(load_model(folder), golden)

    assert golden_trips(golden)["passenger_count"].isna().any()
    assert len(json.dumps(golden)) < 5000


@pytest.mark.slow
def test_another_model_is_found_out_by_the_golden_trips(model):
    params = load_params()
    quick = params.model.model_copy(update={"rounds": 9, "head_rounds": 4, "interval_rounds": 3, "max_depth": 3})
    other = fit_model(make_month("2023-01"), make_zones(), quick, params.features)
    golden = read_golden(write_golden(model, make_month("2023-02")))

    with pytest.raises(UnsafeModel, match=r"golden trip \d+: expected (mean|median|p10|p90)"):
        check_golden(other, golden)


def test_a_planned_model_has_golden_answers_of_its_own(model, monkeypatch):
    trips = make_month("2023-02")
    monkeypatch.setattr(model, "planned", model, raising=False)
    golden = read_golden(write_golden(model, trips))
    check_golden(model, golden)

    golden["planned"]["p90"][5] += 0.01

    with pytest.raises(UnsafeModel, match="golden trip 5: expected p90"):
        check_golden(model, golden)


@pytest.mark.parametrize("text", [None, "{}", '{"trips": {}, "predicted": {}}', "nothing"])
def test_golden_trips_that_cannot_be_read_are_refused(text):
    with pytest.raises(UnsafeModel, match="golden"):
        read_golden(text)

"""Pictures in Parquet files: grey or coloured, of any size, some of them broken; from a folder or a hub."""

import io
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nas.config import compose
from nas.config.parts import Parts
from nas.data.hub import HubImages
from nas.data.imagetable import ImageTable
from nas.errors import DataError

NEU = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data")) / "neu_det"


def encoded(size=(9, 7), mode="L", kind="PNG", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], len(mode)), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values.squeeze(-1) if mode == "L" else values).save(stream, kind)
    return stream.getvalue()


def write(folder, split, pictures, labels, image="image"):
    folder.mkdir(exist_ok=True)
    rows = [{"bytes": picture, "path": None} for picture in pictures]
    table = pa.table(
        {image: pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "label": labels}
    )
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


def many(count=40, classes=2, **options):
    return [encoded(seed=index, **options) for index in range(count)], [index % classes for index in range(count)]


def test_odd_sizes_and_grey_pictures_make_one_channel(tmp_path):
    pictures, labels = many()
    pictures[3], pictures[4] = encoded((1, 13)), encoded((400, 31), kind="JPEG")
    data = ImageTable(write(tmp_path, "train", pictures, labels), "odd", max_side=64).load()
    assert (data.task.channels, data.task.classes) == (1, 2)
    sides = [max(image.shape) for split in data.splits.values() for image in split.images]
    assert max(sides) == 64
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "validation": 8, "test": 8}
    resized = data.preprocessing(25, 25).resize(data.splits["train"].images)
    assert resized.shape == (24, 25, 25, 1)


def test_one_coloured_picture_makes_all_rgb(tmp_path):
    pictures, labels = many()
    pictures[0] = encoded(mode="RGB")
    data = ImageTable(write(tmp_path, "train", pictures, labels)).load()
    assert data.task.channels == 3
    assert {image.shape[2] for image in data.splits["train"].images} == {3}


def test_a_broken_picture_among_many_is_named_counted_and_skipped(tmp_path):
    pictures, labels = many()
    pictures[7], pictures[9] = b"no picture", pictures[9][:40]
    data = ImageTable(write(tmp_path, "train", pictures, labels)).load()
    assert sum(map(len, data.splits.values())) == 38
    (note,) = [note for note in data.notes if "unreadable" in note]
    assert note.startswith("2 unreadable files of train skipped: train-00000-of-00001.parquet row 7 (")
    assert "row 9" in note


def test_a_mostly_broken_set_is_refused(tmp_path):
    pictures, labels = many()
    with pytest.raises(DataError, match="30 of 40 pictures cannot be read"):
        ImageTable(write(tmp_path, "train", [*pictures[:10], *[b"x"] * 30], labels)).load()


def test_imbalance_is_counted(tmp_path):
    pictures, _ = many(60)
    data = ImageTable(write(tmp_path, "train", pictures, [0] * 52 + [1] * 8), classes=["good", "scratch"]).load()
    assert any("good has 52 pictures, scratch 8" in note for note in data.notes)


def test_names_as_labels_and_files_of_their_own(tmp_path):
    pictures, _ = many(20)
    folder = write(tmp_path, "train", pictures, ["cat", "dog"] * 10)
    write(tmp_path, "test", pictures[:4], ["dog"] * 4)
    write(tmp_path, "validation", pictures[:6], ["cat", "dog"] * 3)
    data = ImageTable(folder).load()
    assert data.classes == ("cat", "dog")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "validation": 6, "test": 4}
    assert data.splits["test"].labels.tolist() == [1] * 4


def test_splits_are_the_same_for_a_seed_and_recorded(tmp_path):
    pictures, labels = many()
    folder = write(tmp_path, "train", pictures, labels)
    first, again, other = (ImageTable(folder, seed=seed).load() for seed in (0, 0, 1))
    assert first.members == again.members != other.members
    record = json.loads(first.study_files["splits.json"])
    assert record["members"]["test"] == first.members["test"]
    assert record["classes"]["test"] == {"0": 4, "1": 4}
    names = [name for members in record["members"].values() for name in members]
    assert len(set(names)) == len(names) == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "lable"}, "lacks the column lable; it has image, label"),
        ({"classes": ["one"]}, "needs at least two"),
        ({"classes": ["a", "b", "c"]}, "no readable training picture of c"),
        ({"path": "nowhere"}, "is not a folder"),
        ({"path": None}, "data.path is not set"),
    ],
)
def test_wrong_settings_say_how_to_mend_them(tmp_path, change, said):
    pictures, labels = many()
    folder = write(tmp_path, "train", pictures, labels)
    with pytest.raises(DataError, match=said):
        ImageTable(**{"path": folder, **change}).load()


def test_labels_beyond_the_classes_are_named(tmp_path):
    pictures, labels = many(classes=3)
    with pytest.raises(DataError, match="labels of train hold 2; expected 0 to 1"):
        ImageTable(write(tmp_path, "train", pictures, labels), classes=["a", "b"]).load()


def test_a_hub_name_is_fetched_by_its_library(tmp_path, monkeypatch):
    pictures, labels = many()
    folder, asked = write(tmp_path / "data", "train", pictures, labels), {}

    def snapshot_download(repository, **options):
        asked.update(options, repository=repository)
        if repository == "nobody/nothing":
            raise RuntimeError("404")
        return str(tmp_path)

    fake = types.ModuleType("huggingface_hub")
    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    data = HubImages("someone/things", revision="abc").load()
    assert data.name == "someone_things"
    assert (asked["repo_type"], asked["revision"], asked["allow_patterns"]) == ("dataset", "abc", ["*.parquet"])
    assert data.fingerprint == ImageTable(folder, "someone_things").load().fingerprint
    with pytest.raises(DataError, match=r"nobody/nothing .* cannot be fetched: RuntimeError: 404"):
        HubImages("nobody/nothing").load()


def test_without_the_library_a_hub_name_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'hwnas\[hub\]'"):
        HubImages("someone/things").load()


@pytest.mark.skipif(not NEU.is_dir(), reason=f"{NEU} is missing; NAS_SHARED_DATA names the folder of the data")
def test_neu_is_grey_and_split_as_its_files_are(tmp_path):
    config = compose.resolve(compose.Request("search", ("data=neu", f"data.path={NEU}")))
    data = Parts(config, tmp_path).dataset
    assert (data.task.channels, data.task.classes) == (1, 6)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1133, "validation": 283, "test": 354}
    for name, label in zip(data.members["test"], data.splits["test"].labels, strict=True):
        assert name.startswith(data.classes[label])

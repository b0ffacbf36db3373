import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nas.data.cifar10 import Cifar10
from nas.errors import ConfigError, DataError


def png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, value // 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, values, layout="struct", group=7):
    """Write pictures whose colour is their value and whose label is its last digit."""
    encoded = [value if isinstance(value, bytes) else png(value) for value in values]
    labels = pa.array([0 if isinstance(value, bytes) else value % 10 for value in values], pa.int64())
    if layout == "struct":
        table = pa.table({"img": pa.array([{"bytes": raw, "path": None} for raw in encoded]), "label": labels})
    else:
        table = pa.table({layout: pa.array(encoded, pa.binary()), "label": labels})
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", range(60))
    write(tmp_path / "train-00001-of-00002.parquet", range(60, 100))
    write(tmp_path / "test-00000-of-00001.parquet", range(500, 540))
    return tmp_path


def values(split):
    return [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in split.images]


def test_draws_what_was_asked_for_with_the_right_labels(folder):
    data = Cifar10(str(folder), train_images=50, validation_images=20, test_images=10).load()
    drawn = {name: values(split) for name, split in data.splits.items()}
    assert {name: len(items) for name, items in drawn.items()} == {"train": 50, "validation": 20, "test": 10}
    assert len(set(drawn["train"] + drawn["validation"])) == 70
    assert max(drawn["train"] + drawn["validation"]) < 100 <= 500 <= min(drawn["test"])
    for name, split in data.splits.items():
        assert split.labels.tolist() == [value % 10 for value in drawn[name]]
        assert np.bincount(split.labels, minlength=10).tolist() == [len(split) // 10] * 10
    assert any(value >= 60 for value in drawn["train"])
    assert data.task.channels == 3
    assert data.classes[3] == "cat"


def test_null_takes_all_the_rest(folder):
    data = Cifar10(str(folder), train_images=None, validation_images=30, test_images=None).load()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 70, "validation": 30, "test": 40}
    data = Cifar10(str(folder), train_images=40, validation_images=None, test_images=1).load()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 40, "validation": 60, "test": 1}
    with pytest.raises(ConfigError, match="both null"):
        Cifar10(str(folder), train_images=None, validation_images=None)


def test_same_seed_same_draw_and_another_seed_another(folder):
    draws = [Cifar10(str(folder), train_images=50, validation_images=20, seed=seed).load() for seed in (0, 0, 1)]
    assert values(draws[0].splits["train"]) == values(draws[1].splits["train"]) != values(draws[2].splits["train"])
    assert draws[0].fingerprint == draws[1].fingerprint != draws[2].fingerprint


@pytest.mark.parametrize("layout", ["img", "img.bytes"])
def test_flat_columns_are_read_too(folder, layout):
    write(folder / "test-00000-of-00001.parquet", range(500, 540), layout)
    data = Cifar10(str(folder), train_images=10, validation_images=10).load()
    assert sorted(values(data.splits["test"])) == list(range(500, 540))


def test_only_the_rows_that_are_needed_are_decoded(folder):
    rows = Cifar10(str(folder), train_images=20, validation_images=10, test_images=10).load()
    needed = set(values(rows.splits["train"]) + values(rows.splits["validation"]))
    spoilt = [value if value in needed else b"not a picture" for value in range(60)]
    kept_labels = pa.array([value % 10 for value in range(60)], pa.int64())
    encoded = [value if isinstance(value, bytes) else png(value) for value in spoilt]
    table = pa.table({"img": pa.array([{"bytes": raw, "path": None} for raw in encoded]), "label": kept_labels})
    pq.write_table(table, folder / "train-00000-of-00002.parquet", row_group_size=7)
    again = Cifar10(str(folder), train_images=20, validation_images=10, test_images=10).load()
    assert again.fingerprint == rows.fingerprint


def test_a_broken_picture_is_named(folder):
    write(folder / "test-00000-of-00001.parquet", [*range(500, 503), b"\x89PNG broken", *range(504, 540)])
    with pytest.raises(DataError, match=r"row 3 .*test-00000-of-00001\.parquet"):
        Cifar10(str(folder), train_images=10, validation_images=10).load()


def test_a_broken_file_is_named(folder):
    (folder / "test-00000-of-00001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet cannot be read as parquet"):
        Cifar10(str(folder), train_images=10, validation_images=10).load()


def test_other_columns_are_refused_with_the_layout_expected(folder):
    pq.write_table(pa.table({"picture": [b"", b""], "label": [0, 1]}), folder / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="has the columns picture, label"):
        Cifar10(str(folder), train_images=10, validation_images=10).load()
    pq.write_table(pa.table({"img": [b"", b""], "class": [0, 1]}), folder / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="no readable column `label`"):
        Cifar10(str(folder), train_images=10, validation_images=10).load()
    pq.write_table(pa.table({"img": [b"", b""], "label": [0, 99]}), folder / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="0 to 99; expected 0 to 9"):
        Cifar10(str(folder), train_images=10, validation_images=10).load()


@pytest.mark.parametrize(
    "settings", [{"train_images": 95}, {"train_images": 101}, {"test_images": 41}, {"train_images": 0}]
)
def test_more_pictures_than_there_are_is_refused(folder, settings):
    wanted = {"train_images": 10, "validation_images": 10, "test_images": 10, **settings}
    with pytest.raises(DataError, match=f"{next(iter(settings))}[ =]"):
        Cifar10(str(folder), **wanted).load()


@pytest.mark.parametrize("path", [None, "nowhere", "."])
def test_a_missing_folder_says_what_is_expected_and_where_to_get_it(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data\.path|no train-") as caught:
        Cifar10(path).load()
    assert "train-*.parquet" in str(caught.value)
    assert "dataset hub" in str(caught.value)


REAL = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data")) / "cifar10"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real CIFAR-10 at {REAL}; set NAS_SHARED_DATA")
def test_the_real_set_loads():
    data = Cifar10(str(REAL), train_images=1000, validation_images=500, test_images=300).load()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1000, "validation": 500, "test": 300}
    assert {image.shape for image in data.splits["train"].images} == {(32, 32, 3)}
    # Published statistics of the 50,000 pictures: mean 0.4914 0.4822 0.4465, std 0.2470 0.2435 0.2616.
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.02)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.02)

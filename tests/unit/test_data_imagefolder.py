import numpy as np
import pytest
from PIL import Image

from nas.data.imagefolder import ImageFolder
from nas.errors import ConfigError, DataError


def picture(folder, name, colour=(200, 10, 10), size=(12, 9), **options):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(folder / name, **options)


def fill(root, counts, colour=(200, 10, 10)):
    for label, count in counts.items():
        for index in range(count):
            picture(root / label, f"{index}.png", colour)


def load(root, **settings):
    return ImageFolder(str(root), **{"resolutions": [8], **settings}).load()


def sizes(data):
    return {name: len(split) for name, split in data.splits.items()}


def test_a_folder_per_class_is_split_by_seed(tmp_path):
    fill(tmp_path / "pets", {"dog": 20, "cat": 10})
    data = load(tmp_path / "pets", licence="mine")
    assert (data.name, data.classes, data.licence) == ("pets", ("cat", "dog"), "mine")
    assert sizes(data) == {"train": 18, "validation": 6, "test": 6}
    assert {name: np.bincount(split.labels).tolist() for name, split in data.splits.items()} == {
        "train": [6, 12],
        "validation": [2, 4],
        "test": [2, 4],
    }
    again, other = load(tmp_path / "pets"), load(tmp_path / "pets", seed=1)
    assert again.fingerprint == data.fingerprint != other.fingerprint


def test_pictures_keep_their_class(tmp_path):
    fill(tmp_path, {"red": 10}, (250, 0, 0))
    fill(tmp_path, {"green": 10}, (0, 250, 0))
    for split in load(tmp_path).splits.values():
        assert [("green", "red")[label] for label in split.labels] == [
            "green" if image[0, 0, 1] == 250 else "red" for image in split.images
        ]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train"], {"train": 12, "validation": 4, "test": 4}),
        (["train", "val"], {"train": 16, "validation": 20, "test": 4}),
        (["train", "test"], {"train": 16, "validation": 4, "test": 20}),
        (["train", "validation", "test"], {"train": 20, "validation": 20, "test": 20}),
    ],
)
def test_folders_for_splits_are_used_where_they_exist(tmp_path, folders, expected):
    for folder in folders:
        fill(tmp_path / folder, {"a": 10, "b": 10})
    assert sizes(load(tmp_path)) == expected


def test_grey_pictures_make_one_channel_also_when_saved_as_rgb(tmp_path):
    fill(tmp_path, {"a": 5}, 40)
    fill(tmp_path, {"b": 5}, (90, 90, 90))
    data = load(tmp_path)
    assert data.task.channels == 1
    assert {image.shape for split in data.splits.values() for image in split.images} == {(9, 12, 1)}


def test_one_coloured_picture_makes_all_rgb(tmp_path):
    fill(tmp_path, {"a": 5, "b": 5}, 40)
    picture(tmp_path / "b", "colour.png", (1, 2, 3))
    data = load(tmp_path)
    assert data.task.channels == 3
    images = [image for split in data.splits.values() for image in split.images]
    assert {image.shape[2] for image in images} == {3}
    assert sum((image == 40).all() for image in images) == 10


def test_sixteen_bit_grey_palette_and_alpha_are_read(tmp_path):
    fill(tmp_path, {"a": 4, "b": 4}, 40)
    Image.fromarray(np.full((6, 6), 257 * 77, np.uint16)).save(tmp_path / "a" / "deep.png")
    Image.new("LA", (6, 6), (88, 128)).save(tmp_path / "a" / "alpha.png")
    Image.new("RGB", (6, 6), (99, 99, 99)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "b" / "p.gif")
    data = load(tmp_path)
    assert data.task.channels == 1
    values = {int(image[0, 0, 0]) for split in data.splits.values() for image in split.images}
    assert values == {40, 77, 88, 99}


def test_exif_orientation_is_applied(tmp_path):
    fill(tmp_path, {"a": 4, "b": 4})
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size in (("small.jpg", (20, 10)), ("large.jpg", (600, 300))):
        picture(tmp_path / "a", name, (0, 0, 255), size=size, exif=exif)
    Image.new("CMYK", (20, 10), (255, 0, 0, 0)).save(tmp_path / "b" / "print.jpg", exif=exif)
    data = load(tmp_path, max_side=64)
    shapes = sorted(image.shape for split in data.splits.values() for image in split.images)
    assert shapes == sorted([(9, 12, 3)] * 8 + [(20, 10, 3)] * 2 + [(64, 32, 3)])


def test_large_pictures_are_shrunk_on_load_with_their_aspect(tmp_path):
    fill(tmp_path, {"a": 4, "b": 4})
    picture(tmp_path / "a", "large.png", size=(1000, 250))
    picture(tmp_path / "a", "thin.png", size=(1, 900))
    shapes = {image.shape for split in load(tmp_path, max_side=100).splits.values() for image in split.images}
    assert shapes == {(9, 12, 3), (25, 100, 3), (100, 1, 3)}


def test_broken_files_are_skipped_counted_and_named(tmp_path):
    fill(tmp_path, {"a": 20, "b": 20})
    (tmp_path / "a" / "cut.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:40])
    (tmp_path / "b" / "text.jpg").write_text("not a picture")
    (tmp_path / "b" / "empty.png").touch()
    (tmp_path / "b" / "notes.txt").write_text("no picture by its name, not counted")
    data = load(tmp_path)
    assert sum(sizes(data).values()) == 40
    (note,) = [note for note in data.notes if "unreadable" in note]
    assert note.startswith("3 unreadable files of train skipped")
    assert all(name in note for name in ("a/cut.png", "b/text.jpg", "b/empty.png"))


def test_many_broken_files_are_counted_and_some_named(tmp_path):
    fill(tmp_path, {"a": 16, "b": 16})
    for index in range(30):
        (tmp_path / "a" / f"broken{index:02}.png").write_text("x")
    (note,) = [note for note in load(tmp_path).notes if "unreadable" in note]
    assert note.startswith("30 unreadable")
    assert note.endswith("and 25 more")


def test_a_folder_that_is_mostly_broken_is_refused(tmp_path):
    fill(tmp_path, {"a": 5, "b": 5})
    for index in range(11):
        (tmp_path / "a" / f"broken{index:02}.png").write_text("x")
    with pytest.raises(DataError, match="11 of 21 pictures cannot be read"):
        load(tmp_path)


def test_imbalance_is_noted(tmp_path):
    fill(tmp_path, {"common": 60, "rare": 6})
    assert any("unbalanced: common has 60 pictures, rare 6" in note for note in load(tmp_path).notes)
    fill(tmp_path, {"rare": 30})
    assert not any("unbalanced" in note for note in load(tmp_path).notes)


def test_an_empty_class_is_named(tmp_path):
    fill(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no readable picture of void"):
        load(tmp_path)
    (tmp_path / "void" / "x.png").write_text("broken")
    with pytest.raises(DataError, match=r"void.*1 unreadable, such as void/x\.png"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "no class folder"), ({"only": 5}, "one class folder, 'only'"), ({"a": 0, "b": 0}, "no readable picture")],
)
def test_too_few_classes_or_no_pictures_are_refused_with_the_layout(tmp_path, counts, message):
    for name in counts:
        (tmp_path / name).mkdir()
    fill(tmp_path, counts)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert "FOLDER/CLASS/*.png" in str(caught.value)


@pytest.mark.parametrize("path", [None, "nowhere"])
def test_a_missing_folder_says_what_is_expected(path):
    with pytest.raises(DataError, match=r"data\.path.*FOLDER/CLASS"):
        ImageFolder(path).load()


def test_classes_that_only_validation_has_are_refused(tmp_path):
    fill(tmp_path / "train", {"a": 5, "b": 5})
    fill(tmp_path / "val", {"a": 5, "c": 5})
    with pytest.raises(DataError, match="classes that the training folder lacks: c"):
        load(tmp_path)


def test_so_few_pictures_that_a_class_is_left_without_are_refused(tmp_path):
    fill(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(DataError, match="pictures"):
        load(tmp_path)


def test_a_limit_below_the_largest_resolution_is_refused():
    with pytest.raises(ConfigError, match="max_side=64"):
        ImageFolder("x", resolutions=[96, 128], max_side=64)

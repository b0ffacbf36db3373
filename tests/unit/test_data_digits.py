import numpy as np
import pytest

from nas.data.digits import Digits
from nas.data.stratify import channel_statistics, part_sizes, stratified_parts
from nas.errors import ConfigError


@pytest.fixture(scope="module")
def digits():
    return Digits(seed=3).load()


def test_every_digit_is_in_exactly_one_split(digits):
    from sklearn.datasets import load_digits

    source = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    drawn = np.stack([image for split in digits.splits.values() for image in split.images])[..., 0]
    assert drawn.shape == source.shape
    # As multisets of whole pictures; sorting flattened rows makes the order irrelevant.
    assert sorted(image.tobytes() for image in drawn) == sorted(image.tobytes() for image in source)


def test_labels_stay_with_their_pictures(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    known = {
        np.rint(image * 255 / 16).astype(np.uint8).tobytes(): label
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    for split in digits.splits.values():
        assert [known[image.tobytes()] for image in split.images] == split.labels.tolist()


def test_shares_and_classes_are_as_asked(digits):
    assert {name: len(split) for name, split in digits.splits.items()} == {
        "train": 1079,
        "validation": 359,
        "test": 359,
    }
    everything = np.bincount(np.concatenate([split.labels for split in digits.splits.values()]))
    for split in digits.splits.values():
        expected = everything * len(split) / everything.sum()
        assert np.abs(np.bincount(split.labels, minlength=10) - expected).max() <= 2
    assert digits.task.channels == 1
    assert digits.task.classes == 10


def test_pictures_use_the_whole_range(digits):
    pixels = np.concatenate([image.ravel() for image in digits.splits["train"].images])
    assert (pixels.min(), pixels.max(), pixels.dtype) == (0, 255, np.uint8)
    assert digits.mean[0] == pytest.approx(pixels.mean() / 255, abs=1e-5)
    assert digits.std[0] == pytest.approx(pixels.std() / 255, abs=1e-5)


def test_same_seed_same_split_and_another_seed_another(digits):
    again, other = Digits(seed=3).load(), Digits(seed=4).load()
    assert again.fingerprint == digits.fingerprint != other.fingerprint
    assert again.splits["train"].labels.tolist() == digits.splits["train"].labels.tolist()
    assert other.splits["train"].labels.tolist() != digits.splits["train"].labels.tolist()


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"validation_share 0\.6"):
        Digits(validation_share=0.6, test_share=0.4).load()


@pytest.mark.parametrize("sizes", [(50, 30, 20), (7, 5, 3), (100, 0, 0), (1, 1, 1)])
def test_parts_are_disjoint_and_of_the_size_asked(sizes):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    parts = stratified_parts(labels, sizes, seed=0)
    assert [len(part) for part in parts] == list(sizes)
    drawn = np.concatenate(parts)
    assert len(set(drawn.tolist())) == len(drawn)
    for part in parts:
        expected = np.array([0.6, 0.3, 0.1]) * len(part)
        assert np.abs(np.bincount(labels[part], minlength=3) - expected).max() <= 1.5


def test_parts_larger_than_the_whole_are_refused():
    with pytest.raises(ValueError, match="from 10"):
        stratified_parts(np.zeros(10, np.int64), (8, 3), seed=0)


def test_part_sizes_add_up():
    assert part_sizes(10, 0.2, 0.0) == (8, 2, 0)
    with pytest.raises(ValueError, match="positive validation share"):
        part_sizes(10, 0.0, 0.2)


def test_statistics_are_those_of_all_pixels_and_flat_channels_are_harmless():
    images = [np.random.default_rng(0).integers(0, 256, (5, 7, 2), dtype=np.uint8), np.zeros((2, 2, 2), np.uint8)]
    for image in images:
        image[..., 1] = 51
    pixels = np.concatenate([image.reshape(-1, 2) for image in images]) / 255
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(pixels.mean(axis=0), abs=1e-5)
    assert std == pytest.approx((pixels[:, 0].std(), 1.0), abs=1e-5)

import numpy as np
import pytest
import torch
from torch import nn

from nas.accuracy.resized import ResizedSplits
from nas.accuracy.scoring import score_session
from nas.accuracy.weights import load_weights, save_weights
from nas.data import ImageDataset, Preprocessing, Split
from nas.errors import CandidateError, ModelFileError

PREPROCESSING = Preprocessing(2, 2, mean=(0.25,), std=(0.5,))


class Brightest:
    """Says which of four pixels is the brightest, as a session of a runtime would."""

    def __init__(self, batch="batch", spoil=None):
        self.inputs = {"picture": ((batch, 1, 2, 2), "float32")}
        self.seen = []
        self.spoil = spoil

    def run(self, inputs):
        (batch,) = inputs.values()
        assert list(inputs) == ["picture"]
        self.seen.append(batch)
        logits = batch.reshape(len(batch), 4).copy()
        if self.spoil is not None:
            logits[0, 0] = self.spoil
        return [logits]


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    images = rng.permuted(np.tile(np.arange(0, 240, 60, dtype=np.uint8), (11, 1)), axis=1).reshape(11, 2, 2, 1)
    return images, images.reshape(11, 4).argmax(axis=1).astype(np.int64)


def test_counts_right_answers(pictures):
    images, labels = pictures
    wrong = labels.copy()
    wrong[[0, 10]] = (wrong[[0, 10]] + 1) % 4
    assert score_session(Brightest(), images, labels, PREPROCESSING, batch=4) == 1.0
    assert score_session(Brightest(), images, wrong, PREPROCESSING, batch=4) == 9 / 11


def test_a_free_batch_is_used_and_a_fixed_one_obeyed(pictures):
    images, labels = pictures
    free, fixed, single = Brightest(), Brightest(batch=4), Brightest(batch=1)
    assert [score_session(session, images, labels, PREPROCESSING, batch=8) for session in (free, fixed, single)] == [
        1.0
    ] * 3
    assert [len(batch) for batch in free.seen] == [8, 3]
    assert [len(batch) for batch in fixed.seen] == [4, 4, 4]
    assert [len(batch) for batch in single.seen] == [1] * 11


def test_feeds_what_preprocessing_makes(pictures):
    images, labels = pictures
    session = Brightest()
    score_session(session, images, labels, PREPROCESSING)
    assert np.array_equal(session.seen[0], PREPROCESSING.normalize(images))


def test_refuses_logits_that_are_not_finite(pictures):
    with pytest.raises(CandidateError, match="nan"):
        score_session(Brightest(spoil=np.nan), *pictures, PREPROCESSING)


def test_refuses_no_pictures(pictures):
    images, labels = pictures
    with pytest.raises(ValueError, match="0 pictures"):
        score_session(Brightest(), images[:0], labels[:0], PREPROCESSING)


def _dataset(name, value):
    split = Split([np.full((3, 5, 1), value, np.uint8)], np.zeros(1, np.int64))
    return ImageDataset(name, "none", ("a",), (0.5,), (0.5,), {"train": split, "validation": split})


def test_resized_pictures_are_kept_and_cannot_be_spoilt():
    cache, dataset = ResizedSplits(), _dataset("a", 7)
    first = cache.get(dataset, "train", dataset.preprocessing(4, 4))
    assert first.shape == (1, 4, 4, 1)
    assert cache.get(dataset, "train", dataset.preprocessing(4, 4)) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


def test_resized_pictures_of_another_size_or_set_are_others():
    cache, dataset, other = ResizedSplits(), _dataset("a", 7), _dataset("a", 9)
    assert cache.get(dataset, "train", dataset.preprocessing(4, 4)).max() == 7
    assert cache.get(other, "train", dataset.preprocessing(4, 4)).max() == 9
    assert cache.get(dataset, "train", dataset.preprocessing(2, 6)).shape == (1, 2, 6, 1)


def test_the_least_recently_used_goes_first():
    cache, dataset = ResizedSplits(limit_mib=1), _dataset("a", 7)
    sizes = [dataset.preprocessing(side, 600) for side in (600, 601, 602)]
    kept = cache.get(dataset, "train", sizes[0])
    cache.get(dataset, "train", sizes[1])
    assert cache.get(dataset, "train", sizes[0]) is kept
    cache.get(dataset, "train", sizes[2])
    assert cache.get(dataset, "train", sizes[0]) is kept
    assert len(cache) <= 2


def test_weights_come_back_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    module(torch.randn(2, 3, 8, 8))
    save_weights(module, tmp_path / "weights.safetensors")
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_weights(other, tmp_path / "weights.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ModelFileError, match="no weights"):
        load_weights(nn.Linear(2, 2), path)
    save_weights(nn.Linear(2, 2), path)
    with pytest.raises(ModelFileError, match="another architecture"):
        load_weights(nn.Linear(2, 3), path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_weights(nn.Linear(2, 2), path)

import numpy as np
import pytest

from nas.data.drawn import Shares
from nas.errors import ConfigError, DataError

LABELS = np.repeat(np.arange(4), 10)


def test_only_splits_that_are_missing_are_drawn():
    drawn = Shares(0.2, 0.1, seed=0).draw(LABELS, {"train", "validation"}, "mine", "pictures")
    assert {split: len(part) for split, part in drawn.items()} == {"train": 36, "test": 4}
    assert sorted(np.concatenate(list(drawn.values()))) == list(range(40))
    assert set(LABELS[drawn["train"]]) == {0, 1, 2, 3}


def test_a_split_gets_at_least_one_sample():
    drawn = Shares(0.01, 0.0, seed=0).draw(LABELS, {"train"}, "mine", "pictures")
    assert (len(drawn["validation"]), len(drawn["test"])) == (1, 1)


def test_a_class_without_a_training_sample_is_refused():
    # Training has 18 of 25: 10 of class 0 by its share, so 8 of the 10 classes with one sample at most.
    labels = np.asarray([0] * 15 + list(range(1, 11)))
    shares = Shares(0.2, 0.1, 0)
    with pytest.raises(DataError, match=r"classes of mine have so few pictures .* at least 5"):
        shares.draw(labels, {"train"}, "mine", "pictures")


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"data set mine: validation_share 0\.6"):
        Shares(0.6, 0.4, 0).draw(LABELS, {"train"}, "mine", "pictures")


def test_the_card_says_where_a_split_comes_from():
    assert Shares(0.2, 0.1, 3).notes({"train", "test"}, "files") == [
        "validation drawn from the training files, stratified by seed 3",
        "test read from files of their own",
    ]

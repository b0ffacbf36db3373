import os
from pathlib import Path

import numpy as np
import pytest

from nas.accuracy.augment import Augmentation
from nas.accuracy.lessons import make_lesson
from nas.accuracy.resized import ResizedSplits
from nas.accuracy.scoring import perplexity_session
from nas.data.language import WindowEncoding
from nas.data.plain_text import PlainText, TinyShakespeare
from nas.data.tokenizer import train_tokenizer
from nas.errors import CandidateError, ConfigError, DataError

SENTENCE = "the quick brown fox number {} jumps over the lazy dog of house {}.\n"
TEXT = "".join(SENTENCE.format(index, index * 7 % 13) for index in range(200))


@pytest.fixture
def file(tmp_path):
    (tmp_path / "own.txt").write_text(TEXT)
    return tmp_path / "own.txt"


def load(path, **settings):
    return PlainText(str(path), **{"contexts": (8,), "vocabulary": 290, **settings}).load()


def test_the_text_is_cut_by_position_and_the_tokenizer_sees_its_beginning_only(file):
    data = load(file, validation_share=0.1, test_share=0.1)
    parts = {name: data.tokenizer.decode(stream.tokens.tolist()) for name, stream in data.splits.items()}
    assert parts["train"] + parts["validation"] + parts["test"] == TEXT
    assert len(parts["validation"]) == len(parts["test"]) == round(len(TEXT) * 0.1)
    assert data.tokenizer.json == train_tokenizer([parts["train"]], 290, lowercase=False, word_start=False).json
    assert (data.task.kind, data.task.metric, data.task.unit) == ("language_model", "perplexity", "tokens")
    assert data.task.vocabulary == data.task.classes == data.tokenizer.vocabulary
    assert data.fingerprint == load(file, validation_share=0.1, test_share=0.1).fingerprint != load(file).fingerprint


def test_windows_cover_each_token_once_as_a_target():
    stream = np.arange(23, dtype=np.int32)
    encoding = WindowEncoding(5)
    windows = encoding.prepare([stream])
    assert encoding.targets(windows).ravel().tolist() == list(range(1, 21))
    assert (encoding.targets(windows) == encoding.encode(windows) + 1).all()
    assert encoding.encode(windows).dtype == encoding.example().dtype == np.int64
    assert encoding.prepare([stream[:5]]).shape == (0, 6)


def test_training_windows_move_and_stay_inside(file):
    data = load(file)
    lesson = make_lesson(data, data.preprocessing(8), ResizedSplits(), Augmentation())
    rng, text = np.random.default_rng(0), data.splits["train"].tokens
    everything = np.arange(lesson.count)
    inputs, targets = lesson.batch(everything, rng)
    again, _ = lesson.batch(everything, rng)
    assert inputs.shape == targets.shape == (lesson.count, 8)
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    assert not np.array_equal(inputs, again)
    assert lesson.count == (len(text) - 1) // 8
    held, following = lesson.validation(0, lesson.held_out)
    assert (held[:, 1:] == following[:, :-1]).all()
    assert held.ravel().tolist() == data.splits["validation"].tokens[: held.size].tolist()


def test_a_folder_is_read_in_order_and_broken_files_are_named(tmp_path, file):
    file.unlink()
    (tmp_path / "b.txt").write_text(TEXT[2000:])
    (tmp_path / "a.txt").write_text(TEXT[:2000])
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    data = load(tmp_path)
    assert any("1 files skipped, no UTF-8: c.txt" in note for note in data.notes)
    whole = "".join(
        data.tokenizer.decode(data.splits[name].tokens.tolist()) for name in ("train", "validation", "test")
    )
    assert whole == TEXT[:2000] + "\n" + TEXT[2000:]


def test_hopeless_texts_are_refused(tmp_path, file):
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"data.path is not set"):
        PlainText(None).load()
    (tmp_path / "empty.txt").write_text("  \n")
    with pytest.raises(DataError, match="holds no text"):
        load(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="the longest context needs 5001"):
        load(file, contexts=(5000,))
    with pytest.raises(ConfigError, match="a sum below 1"):
        PlainText("x", validation_share=0.6, test_share=0.5)


class Fixed:
    """Says the same of every token."""

    def __init__(self, row):
        self.row = np.asarray(row, np.float32)
        self.inputs = {"input": ((1, "tokens"), "int64"), "past_0_key": ((1, 1, "past", 2), "float32")}

    def run(self, inputs):
        assert inputs["past_0_key"].shape == (1, 1, 0, 2)
        return [np.broadcast_to(self.row, (1, inputs["input"].shape[1], len(self.row)))]


def test_perplexity_is_that_of_the_targets():
    tokens = np.zeros((3, 4), np.int64)
    targets = np.array([[0, 1, 2, 3]] * 3)
    assert perplexity_session(Fixed([5.0] * 7), tokens, targets) == pytest.approx(7.0)
    shares = np.array([0.5, 0.25, 0.125, 0.125])
    expected = np.exp(-np.log(shares).mean())
    assert perplexity_session(Fixed(np.log(shares) + 3), tokens, targets) == pytest.approx(expected)
    with pytest.raises(CandidateError, match="not finite"):
        perplexity_session(Fixed([np.nan] * 4), tokens, targets)
    with pytest.raises(ValueError, match="at least one"):
        perplexity_session(Fixed([0.0] * 4), tokens[:0], targets[:0])


def test_the_published_shakespeare():
    folder = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data")) / "tiny_shakespeare"
    if not folder.is_dir():
        pytest.skip(f"no Tiny Shakespeare in {folder}")
    data = TinyShakespeare(str(folder)).load()
    parts = [data.tokenizer.decode(stream.tokens.tolist()) for stream in data.splits.values()]
    assert [len(part) for part in parts] == [1_003_854, 55_770, 55_770]
    assert parts[0].startswith("First Citizen:\nBefore we proceed")
    assert data.tokenizer.vocabulary == 1024

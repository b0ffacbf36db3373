import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nas.data.clinc150 import Clinc150
from nas.data.labelled_text import LabelledText
from nas.data.text import TokenEncoding
from nas.data.tokenizer import PAD_ID, train_tokenizer
from nas.errors import ConfigError, DataError

TEXTS = ["book a table for two", "what is the weather", "set an alarm", "Play a song by ABBA", "weather in Oslo"] * 8


def lines(path, rows):
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else row.encode() for row in rows))


@pytest.fixture
def file(tmp_path):
    lines(tmp_path / "own.tsv", [f"{'ab'[index % 2]}\t{text} {index}" for index, text in enumerate(TEXTS)])
    return tmp_path / "own.tsv"


def test_the_same_texts_give_the_same_tokenizer_in_another_process(tmp_path):
    here = train_tokenizer(TEXTS, 280, lowercase=True, word_start=True).json
    script = (
        "import sys, json; from nas.data.tokenizer import train_tokenizer;"
        "print(train_tokenizer(json.loads(sys.argv[1]), 280, lowercase=True, word_start=True).json, end='')"
    )
    run = subprocess.run([sys.executable, "-c", script, json.dumps(TEXTS)], capture_output=True, text=True, check=True)
    assert run.stdout == here


def test_no_text_is_unknown_and_what_was_read_is_given_back():
    tokenizer = train_tokenizer(TEXTS, 300, lowercase=False, word_start=False)
    text = "Größe: 12 kg, \u4f60\u597d 🙂\n\ttwo"
    (tokens,) = tokenizer.encode([text])
    assert tokenizer.decode(tokens.tolist()) == text
    assert PAD_ID not in tokens
    assert tokens.max() < tokenizer.vocabulary <= 300
    assert len(tokenizer.encode(["what is the weather"])[0]) < len("what is the weather") / 2


def test_lower_case_is_folded_where_asked():
    tokenizer = train_tokenizer(TEXTS, 300, lowercase=True, word_start=True)
    first, second = tokenizer.encode(["Play A Song", "play a song"])
    assert first.tolist() == second.tolist()


def test_fewer_tokens_than_bytes_are_refused():
    with pytest.raises(ConfigError, match=r"data.vocabulary=100; expected 257"):
        train_tokenizer(TEXTS, 100, lowercase=True, word_start=True)


def test_encoding_pads_and_cuts_at_the_end():
    encoding = TokenEncoding(4)
    prepared = encoding.prepare([np.array([5, 6], np.int32), np.array([1, 2, 3, 4, 9], np.int32)])
    assert prepared.tolist() == [[5, 6, PAD_ID, PAD_ID], [1, 2, 3, 4]]
    assert encoding.encode(prepared).dtype == encoding.example().dtype == np.int64
    assert encoding.example().shape == (1, *encoding.shape)


def test_a_file_is_split_by_seed_and_the_tokenizer_sees_the_training_lines_only(file):
    data = LabelledText(str(file), lengths=(8,), vocabulary=300).load()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "validation": 8, "test": 8}
    assert data.classes == ("a", "b")
    assert (data.task.kind, data.task.classes, data.task.metric) == ("text_classification", 2, "accuracy")
    assert data.task.vocabulary == data.tokenizer.vocabulary
    again, other = (LabelledText(str(file), vocabulary=300, seed=seed).load() for seed in (0, 1))
    assert again.fingerprint == data.fingerprint != other.fingerprint
    texts = {name: {data.tokenizer.decode(t.tolist()).strip() for t in s.samples} for name, s in data.splits.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    trained = train_tokenizer(
        [data.tokenizer.decode(t.tolist())[1:] for t in data.splits["train"].samples], 300, True, True
    )
    assert trained.json == data.tokenizer.json


def test_broken_lines_are_named_counted_and_skipped(file):
    rows = file.read_bytes().splitlines()
    lines(file, [*rows, b"no tab here", b"a\t\xff\xfe", b"", b"\tno label", rows[0]])
    data = LabelledText(str(file), vocabulary=300).load()
    assert sum(len(split) for split in data.splits.values()) == len(rows) + 1
    told = " ".join(data.notes)
    assert "3 unreadable lines of train skipped: line 41 (no label, tab and text), line 42 (no UTF-8)" in told
    assert "1 texts of train stand there more than once" in told


def test_files_for_validation_and_test_are_used(tmp_path, file):
    file.rename(tmp_path / "train.tsv")
    lines(tmp_path / "dev.txt", ["a\tone", "b\ttwo"])
    data = LabelledText(str(tmp_path), vocabulary=300).load()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 32, "validation": 2, "test": 8}
    lines(tmp_path / "dev.txt", ["c\tone"])
    with pytest.raises(DataError, match="labels that the training texts lack: c"):
        LabelledText(str(tmp_path)).load()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["a\tone", "a\ttwo"], "has one label, 'a'"),
        (["nothing"], "has no readable line .1 broken"),
        (["a\tone", "b\ttwo", "c\tthree"], "3 lines of .* leave 1 to train 3 classes on"),
    ],
)
def test_hopeless_files_are_refused(tmp_path, rows, reason):
    lines(tmp_path / "own.tsv", rows)
    with pytest.raises(DataError, match=reason):
        LabelledText(str(tmp_path / "own.tsv")).load()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither a file nor a folder"):
        LabelledText(str(tmp_path / "none")).load()
    with pytest.raises(DataError, match=r"no train.tsv"):
        LabelledText(str(tmp_path)).load()
    with pytest.raises(DataError, match=r"data.path is not set"):
        Clinc150(None).load()


def test_imbalance_is_told(tmp_path):
    lines(
        tmp_path / "own.tsv", [f"a\ttext {index}" for index in range(60)] + [f"b\ttext {index}" for index in range(6)]
    )
    assert any("classes are unbalanced: a has" in note for note in LabelledText(str(tmp_path / "own.tsv")).load().notes)


def published(folder, **changes):
    rows = {
        split: [[f"please {name} {index}", name] for name in ("pay", "call") for index in range(4)]
        for split in ("train", "val", "test")
    }
    rows |= {f"oos_{split}": [["why", "oos"]] for split in ("train", "val", "test")}
    (folder / "data_full.json").write_text(json.dumps({**rows, **changes}))
    return str(folder)


def test_clinc_keeps_the_published_splits(tmp_path):
    data = Clinc150(published(tmp_path), vocabulary=300).load()
    assert data.classes == ("call", "pay", "oos")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 9, "validation": 9, "test": 9}
    inside = Clinc150(published(tmp_path), vocabulary=300, out_of_scope=False).load()
    assert inside.classes == ("call", "pay")
    assert len(inside.splits["test"]) == 8


@pytest.mark.parametrize("changes", [{"val": []}, {"train": [["text"]]}, {"test": [["text", "unknown"]]}])
def test_clinc_of_another_layout_is_refused(tmp_path, changes):
    with pytest.raises(DataError, match="Expected a folder with"):
        Clinc150(published(tmp_path, **changes), vocabulary=300).load()


def test_the_published_clinc():
    folder = Path(os.environ.get("NAS_SHARED_DATA", "../shared/data")) / "clinc150"
    if not folder.is_dir():
        pytest.skip(f"no CLINC150 in {folder}")
    data = Clinc150(str(folder)).load()
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 15100,
        "validation": 3100,
        "test": 5500,
    }
    assert len(data.classes) == 151
    assert np.bincount(data.splits["train"].labels).tolist() == [100] * 151
    assert data.tokenizer.vocabulary == 2000

"""Searches on shared weights: trained once, reused, counted towards the hours, refused where a space shares nothing."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nas.accuracy.shared_weights import part_of
from nas.accuracy.supernet import Supernet
from nas.config.build import run_search
from nas.config.compose import Request, resolve
from nas.errors import ConfigError

SEARCH = (
    *("data=digits", "data.resolutions=[8]", "space=convnet", "accuracy=supernet", "accuracy.passes=1"),
    *("accuracy.warmup_passes=0.2", "accuracy.recalibration_images=64", "cost=predicted", "executor=in_process"),
    *("tracking=none", "proxies=[]", "sampler=random", "budget=2", "calibration_images=16", "keep=all"),
    *("space.stem_widths=[2,4]", "space.widths=[[2,4],[4,6]]", 'space.strides=["122"]', "space.depths=[1]"),
    *("space.blocks=[mbconv,fused]", "space.kernels=[3]", "space.dense_kernels=[3]", "space.expansions=[1,2]"),
)


def test_a_search_trains_a_supernet_once_and_another_device_reuses_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = run_search(resolve(Request("search", (*SEARCH, "study=first"))))
    (path,) = (tmp_path / "runs" / "supernets").glob("*.safetensors")
    assert path.name in " ".join(report.notes)
    trained = path.stat().st_mtime_ns
    words = (*SEARCH, "device=rpi5", f"accuracy.file={path}", "seed=1", "study=second")
    again = run_search(resolve(Request("search", words)))
    assert path.stat().st_mtime_ns == trained
    kept = load_file(path)
    for study, found in (("first", report), ("second", again)):
        assert found.front
        for file in (tmp_path / "runs" / study / "models").glob("*/weights.safetensors"):
            stem = load_file(file)["stem.conv.weight"]
            # What is quantized and shipped is the part of the shared weights itself.
            assert torch.equal(stem, part_of(kept["weights/stem.conv.conv.weight"], stem.shape))


def test_the_training_of_shared_weights_counts_towards_the_hours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def slow(*args, **kwargs):
        time.sleep(0.3)
        return Path("somewhere.safetensors")

    monkeypatch.setattr(Supernet, "prepare", slow)
    report = run_search(resolve(Request("search", (*SEARCH, f"hours={0.25 / 3600}"))))
    assert "hours is reached" in report.ended
    assert not report.front


def test_a_space_that_shares_nothing_is_refused_before_anything_is_spent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="'toy' shares no weights"):
        run_search(resolve(Request("search", ("data=digits", "space=toy", "accuracy=supernet", "tracking=none"))))
    assert not (tmp_path / "runs" / "supernets").exists()

"""A language model from the command line: searched, settled, shipped, and generating text on its own."""

import json
import subprocess
import sys


def test_a_language_model_is_searched_and_generates(tmp_path):
    (tmp_path / "own.txt").write_text(
        "".join(f"alpha beta gamma {'one' if i % 2 else 'two'} delta.\n" for i in range(300))
    )
    words = (
        *(
            "search",
            "data=plain_text",
            "data.path=own.txt",
            "data.contexts=[16]",
            "data.vocabulary=280",
            "space=decoder",
        ),
        *("objective=perplexity_token_first_cache", "study=lm", "budget=1", "tracking=none", "output=json"),
        *("space.prompt=8", "space.widths=[16]", "space.depths=[1]", "space.heads=[2]", "space.kv_heads=[1]"),
        *("space.head_sizes=[8]", "space.mlp_ratios=[1,2]", "accuracy.epochs=1", "accuracy.warmup_epochs=0.1"),
        *("executor=in_process", "proxies=[params]", "cost.timing.max_seconds=0.3", "sampler=random"),
        *("objective.kv_cache_kib.reference=2", "objective.ttft_ms.reference=100", "objective.token_ms.reference=100"),
        # What is tried here is the way, not the calm of the machine.
        *("cost.timing.max_anchor_spread=10", "cost.timing.max_anchor_level=10", "cost.timing.max_stolen=1"),
    )
    run = subprocess.run(
        [sys.executable, "-m", "nas", *words], capture_output=True, text=True, cwd=tmp_path, timeout=280, check=False
    )
    assert run.stdout, run.stderr[-3000:]
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["trials"]["complete"] == 1
    assert report["reference"]["perplexity"] == 280
    for member in report["front"]:
        assert 1 < member["perplexity"] < 280
        assert min(member["token_ms"], member["ttft_ms"]) > 0
        assert member["kv_cache_kib"] == 2 * 8 * 16 * 4 / 1024
        assert member["provenance"]["token_ms"] == "measured"
        assert member["provenance"]["kv_cache_kib"] == "computed"
    assert 0 < report["hypervolume"] < 1
    study = tmp_path / "runs" / "lm"
    if report["export"] is None:
        # A busy machine may keep the times from repeating, which is told and tested elsewhere.
        assert "as a ratio to the anchor model" in report["reason"]
        return
    export = tmp_path / report["export"]
    assert (export / "tokenizer.json").read_text() == (study / "tokenizer.json").read_text()
    command = [sys.executable, "-I", export / "run.py", "alpha beta", "20"]
    told = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True).stdout
    assert told.startswith("alpha beta")
    assert len(told) > len("alpha beta") + 20

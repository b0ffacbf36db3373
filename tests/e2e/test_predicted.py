"""A search for a board that is not on the desk: every cost an estimate, with interval, label and card."""

import json
import subprocess
import sys


def test_a_board_out_of_reach_is_searched_for_and_the_exported_card_says_so(tmp_path):
    words = ["device=rpi5", "cost=predicted", "objective=accuracy_latency_energy", "budget=3", "study=desk"]
    command = [sys.executable, "-m", "nas", "search", "experiment=digits_toy", *words, "tracking=none", "output=json"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=280, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["trials"]["complete"] == 3
    assert any("nothing was measured on 'rpi5'" in note for note in report["notes"])
    card = json.loads((tmp_path / "runs" / "desk" / "export" / "model_card.json").read_text())
    for metric, label in (("latency_ms", ("predicted", "modelled")), ("energy_mj", ("modelled",))):
        estimate = card["estimates"][metric]
        low, high = estimate["interval_90"]
        assert estimate["label"] in label
        assert low <= estimate["value"] <= high
        assert estimate["value"] == card["values"][metric]
        assert estimate["why_so_wide"]
        assert estimate["rests_on"], estimate["model"]
    checked = card["estimates"]["latency_ms"]["rests_on"]["roofline"]["validated_on"]
    assert checked["device"] == "Raspberry Pi 5"
    assert "Horowitz" in card["estimates"]["energy_mj"]["rests_on"]["energy"]["sources"]
    assert "measured" not in {origin["provenance"] for origin in card["provenance"].values()}

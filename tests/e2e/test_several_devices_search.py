"""One search for two boards, played back, and one out of reach: trained once, costed thrice, one front each."""

import json
import subprocess
import sys

from nas.data import Task
from nas.device import local_fingerprint
from nas.measurement import Measurement
from nas.store import StudyStore
from search_spaces.toy import Toy

PEAKS = "{fp32_gmacs: 20.0, int8_gmacs: 80.0, bandwidth_gbs: 10.0, op_overhead_us: 1.0, source: made up}"
DEVICES = ("devices={one: replay, two: replay, far: rpi4}", f"devices.one.peaks={PEAKS}", f"devices.two.peaks={PEAKS}")
QUICK = ("proxies=[]", "accuracy.epochs=2", "calibration_images=8")


def record(file, turn):
    """Write a recording of every network; what one board is quick at the other is slow at."""
    fingerprint = local_fingerprint()
    models = {}
    space = Toy(Task("image_classification", 1, 10), (8, 12, 16))
    for index, architecture in enumerate(sorted(space.enumerate(), key=lambda one: one.id)):
        latency = 1.0 + (index * turn) % 97 / 50
        reading = Measurement(
            latency, latency, 0.001, 20, 5, "ms", fingerprint.id, "onnxruntime-recorded", 0.0, latency, 0.001
        )
        models[architecture.id] = {"latency_ms": reading.to_dict()}
    file.write_text(json.dumps({"version": 1, "fingerprint": fingerprint.to_dict(), "models": models}))


def run(folder, verb, *words):
    command = [sys.executable, "-m", "nas", verb, *words, "output=json"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def search(folder, budget, study="many", *further):
    files = [f"devices.{name}.recording={folder / name}.json" for name in ("one", "two")]
    words = ("experiment=digits_toy", *DEVICES, *files, "tracking=none", "rule=fastest_within_20")
    return run(folder, "search", *words, *QUICK, *further, f"study={study}", f"budget={budget}")


def test_candidates_are_trained_once_and_have_a_cost_on_each_device(tmp_path):
    record(tmp_path / "one.json", 31)
    record(tmp_path / "two.json", 53)
    search(tmp_path, 2)
    report = search(tmp_path, 5)
    assert report["trials"]["complete"] == 5
    assert set(report["devices"]) == {"one", "two", "far"}
    assert len(report["exchanges"]) == 9
    for name, own in report["devices"].items():
        origins = {member["provenance"]["latency_ms"] for member in own["front"]}
        assert origins <= ({"predicted", "modelled"} if name == "far" else {"measured"}), name
        card = json.loads((tmp_path / own["export"] / "model_card.json").read_text())
        assert own["export"].endswith(f"export/{name}")
        assert card["trial"] == own["shipped"]
        assert card["device"]["name"] == ("rpi4" if name == "far" else "replay")
        if name == "far":
            assert card["verified"]["latency"] is None
        else:
            latency = next(one["latency_ms"] for one in own["front"] if one["trial"] == own["shipped"])
            assert card["verified"]["latency"]["median"] == latency
            assert own["measurements"]["settle"] >= 2 * len(own["front"])
    store = StudyStore(tmp_path / "runs" / "many" / "store.sqlite")
    records = list(store.trials())
    store.close()
    assert [record.number for record in records] == list(range(len(records)))
    for found in (record for record in records if record.state == "complete"):
        recorded = {
            name: json.loads((tmp_path / f"{name}.json").read_text())["models"][found.evaluation.architecture.id]
            for name in ("one", "two")
        }
        assert found.evaluation.values["latency_ms"] == recorded["one"]["latency_ms"]["median"]
        assert found.evaluation.values["latency_ms@two"] == recorded["two"]["latency_ms"]["median"]
        assert found.evaluation.values["latency_ms@far"] > 0
        assert len(found.optuna["values"]) == 5
        assert found.evaluation.key.device.count("+") == 2
    assert set(run(tmp_path, "front", "many", "rule=knee")["devices"]) == {"one", "two", "far"}
    facts = run(tmp_path, "export", "many", "target=far", "to=elsewhere")
    assert facts["devices"]["far"]["export"] == "elsewhere"
    assert (tmp_path / "elsewhere" / "model.onnx").is_file()


def test_with_auto_each_device_is_measured_where_its_own_front_is_in_doubt(tmp_path):
    record(tmp_path / "one.json", 31)
    record(tmp_path / "two.json", 53)
    report = search(tmp_path, 9, "doubt", "cost=auto", "cost.learner.fewest=4", "executor=in_process")
    assert report["trials"]["complete"] == 9
    assert report["prediction"] is None
    store = StudyStore(tmp_path / "runs" / "doubt" / "store.sqlite")
    kept = [record.evaluation for record in store.trials() if record.state == "complete"]
    store.close()
    for name, metric in (("one", "latency_ms"), ("two", "latency_ms@two")):
        own = report["devices"][name]
        searched = [one.provenance[metric]["provenance"] for one in kept]
        assert searched.count("measured") == own["prediction"]["measured"] == own["measurements"]["search"] >= 4
        found = own["prediction"]
        assert found["measured"] + found["measured_after_search"] + found["saved"] == 9
        assert {member["provenance"]["latency_ms"] for member in own["front"]} == {"measured"}
        # What the recording says of a measured one, and what the model of that device said of the others.
        recorded = json.loads((tmp_path / f"{name}.json").read_text())["models"]
        for one, origin in zip(kept, searched, strict=True):
            if origin == "measured":
                assert one.values[metric] == recorded[one.architecture.id]["latency_ms"]["median"]
            else:
                assert one.provenance[metric]["model"].startswith("online")
    assert report["devices"]["far"]["prediction"] is None
    assert not any(row["estimated"] for row in report["exchanges"] if row["on"] != "far")

"""Ready models beside the candidates: read, quantized, scored and timed, whatever made them."""

import json
from dataclasses import asdict

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.neural_network import MLPClassifier
from torch import nn

from nas.baselines import BaselineRequest, measure_baseline
from nas.config import compose
from nas.config.baselines import make_baseline_job, read_requests
from nas.config.build import run_search
from nas.config.parts import Parts
from nas.errors import CandidateError, ConfigError, ModelFileError, NasError
from nas.evaluation import Baseline
from nas.plots import pareto_html, pareto_png
from nas.store import StudyStore

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Stochastic Optimizer")
TOY = ("experiment=digits_toy", "cost=predicted", "executor=in_process", "tracking=none", "budget=1", "proxies=[]")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files as PyTorch, TensorFlow and scikit-learn write them, trained a little on digits."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    data = parts(folder).dataset
    train = data.splits["train"]
    pre = data.preprocessing(8, 8)
    images, labels = torch.from_numpy(pre.normalize(pre.resize(train.images))), torch.from_numpy(train.labels)
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 10)),
    )
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(5):
        for part in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[part]), labels[part]).backward()
            optimizer.step()
    export(net, images[:1], folder / "net.onnx", opset_version=11)
    export(
        Last(net), images[:1].permute(0, 2, 3, 1), folder / "last.onnx", input_names=["x"], dynamic_axes={"x": {0: "n"}}
    )
    export(nn.Linear(3, 2), torch.zeros(1, 3), folder / "other.onnx")
    sklearn_model(train, folder / "mlp.onnx")
    return folder


class Last(nn.Module):
    """Reads pictures with their channels last, as TensorFlow does."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.softmax(self.net(x.permute(0, 3, 1, 2)), dim=1)


def export(module, example, path, **options):
    torch.onnx.export(module.eval(), (example,), str(path), dynamo=False, **options)


def sklearn_model(train, path):
    """Write a multi-layer perceptron with a scaler in front, labels first, in the operators of skl2onnx."""
    rows = np.stack([image.reshape(-1) for image in train.images]).astype(np.float32) / 255 * 16
    fitted = MLPClassifier((32,), max_iter=60, random_state=0).fit((rows - 8) / 4, train.labels)
    (first, second), (bias1, bias2) = fitted.coefs_, fitted.intercepts_
    stored = {"w1": first, "b1": bias1[None], "w2": second, "b2": bias2[None]}
    nodes = [
        helper.make_node("Scaler", ["X"], ["s"], domain="ai.onnx.ml", offset=[8.0] * 64, scale=[0.25] * 64),
        helper.make_node("MatMul", ["s", "w1"], ["m1"], "MatMul"),
        helper.make_node("Add", ["m1", "b1"], ["a1"], "Add"),
        helper.make_node("Relu", ["a1"], ["r"], "Relu"),
        helper.make_node("MatMul", ["r", "w2"], ["m2"], "MatMul1"),
        helper.make_node("Add", ["m2", "b2"], ["a2"], "Add1"),
        helper.make_node("Softmax", ["a2"], ["probabilities"], "Softmax"),
        helper.make_node("ArgMax", ["a2"], ["label"], "ArgMax", axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 10]),
        ],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in stored.items()],
    )
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save_model(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))


def parts(folder, *overrides, plugins=()):
    config = compose.resolve(compose.Request("search", (*TOY, "study=toy", *overrides), plugins=tuple(plugins)))
    return Parts(config, folder)


def measured(folder, entry, *overrides, target):
    made = parts(target, f"baselines=[{entry.replace('FOLDER', str(folder))}]", *overrides)
    ((request, _),) = read_requests(made)
    baseline = measure_baseline(request, made.evaluator)
    again = Baseline.from_dict(json.loads(json.dumps(baseline.to_dict())))
    assert again == baseline
    return baseline


@pytest.mark.parametrize(
    "entry", ["FOLDER/net.onnx", "FOLDER/last.onnx", "{model: FOLDER/mlp.onnx, mean: [0.0], std: [0.0625]}"]
)
def test_a_float_file_is_quantized_and_scored(models, tmp_path, entry):
    baseline = measured(models, entry, target=tmp_path)
    assert baseline.precision == "int8", baseline.notes
    assert baseline.values["accuracy_fp32"] > 0.8
    assert abs(baseline.values["accuracy"] - baseline.values["accuracy_fp32"]) < 0.05
    assert baseline.values["macs"] > 0
    assert set(baseline.values) == set(baseline.provenance)
    assert baseline.provenance["latency_ms"]["provenance"] == "modelled"
    assert baseline.values["size_kib"] == (tmp_path / baseline.folder / "model.onnx").stat().st_size / 1024


def test_what_is_quantized_already_stays_as_it_is(models, tmp_path):
    first = measured(models, "FOLDER/net.onnx", target=tmp_path / "first")
    second = measured(tmp_path / "first" / first.folder, "FOLDER/model.onnx", target=tmp_path / "second")
    assert second.precision == "as given"
    assert "quantized already" in second.notes[0]
    assert second.values["accuracy"] == first.values["accuracy"]


def test_what_fits_no_picture_has_no_accuracy_and_says_why(models, tmp_path):
    baseline = measured(models, "FOLDER/other.onnx", target=tmp_path)
    assert "accuracy" not in baseline.values
    assert "is not scored" in baseline.notes[0]
    assert "no calibration picture fits" in baseline.notes[1]
    assert baseline.values["latency_ms"] > 0


def test_work_that_is_no_multiply_accumulate_is_not_called_none(models, tmp_path):
    trees = {f"nodes_{name}": [0] for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")}
    leaf = {"nodes_modes": ["LEAF"], "nodes_values": [0.0], "class_treeids": [0], "class_nodeids": [0]}
    vote = {"class_ids": [3], "class_weights": [1.0], "classlabels_int64s": list(range(10)), "post_transform": "NONE"}
    outputs = ["label", "scores"]
    node = helper.make_node("TreeEnsembleClassifier", ["X"], outputs, domain="ai.onnx.ml", **trees, **leaf, **vote)
    shapes = [(name, kind, [None, *rest]) for name, kind, rest in (("label", 7, []), ("scores", 1, [10]))]
    graph = helper.make_graph(
        [node],
        "forest",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 64])],
        [helper.make_tensor_value_info(*shape) for shape in shapes],
    )
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save_model(helper.make_model(graph, opset_imports=imports, ir_version=8), str(tmp_path / "forest.onnx"))
    baseline = measured(tmp_path, "FOLDER/forest.onnx", target=tmp_path)
    assert baseline.precision == "as given"
    assert not {"macs", "params", "latency_ms"} & set(baseline.values)
    assert "TreeEnsembleClassifier does work" in baseline.notes[-1]
    assert 0.05 < baseline.values["accuracy"] < 0.2


def test_a_module_of_a_users_own_is_trained_by_the_recipe_of_the_search(tmp_path):
    file = tmp_path / "my_flat_net.py"
    file.write_text(
        "from torch import nn\n\n\nclass MyNet(nn.Sequential):\n"
        "    def __init__(self, task, width: int = 4, pool: int = 1):\n"
        "        super().__init__(nn.Conv2d(task.channels, width, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(pool),\n"
        "                         nn.Flatten(), nn.Linear(pool**2 * width, task.classes))\n"
    )
    entry = (
        "baselines=[{module: {_target_: my_flat_net.MyNet, width: 16}, name: flat, resolution: 8},"
        "{module: {_target_: my_flat_net.MyNet, pool: 2}, resolution: 8}]"
    )
    with pytest.raises(ConfigError, match="--plugin"):
        read_requests(parts(tmp_path, entry))
    made = parts(tmp_path, entry, plugins=[str(file)])
    objectives = [asdict(axis) for axis in made.objectives]
    job = make_baseline_job({"config": made.config, "folder": str(tmp_path), "objectives": objectives})
    baseline = Baseline.from_dict(job({"baseline": 0}))
    assert (baseline.name, baseline.precision, baseline.source) == ("flat", "int8", "my_flat_net.MyNet")
    assert "trained by the recipe of the search" in baseline.notes
    assert 0.12 < baseline.values["accuracy"] <= 1
    with pytest.raises(CandidateError, match="cannot be exported to ONNX"):
        job({"baseline": 1})


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ("nowhere.onnx", ModelFileError, "nowhere.onnx"),
        ("3", ConfigError, "expected a file such as model.onnx"),
        ("os.system", ConfigError, "is refused"),
        ("{modl: x.onnx}", ConfigError, "Did you mean 'model'"),
        ("{name: x}", ConfigError, "either a model or a module"),
    ],
)
def test_what_cannot_be_a_baseline_is_refused_before_anything_is_spent(tmp_path, entry, error, said):
    with pytest.raises(error, match=said):
        read_requests(parts(tmp_path, f"baselines=[{entry}]"))


def test_a_search_shows_its_baselines_but_never_ships_them(models, tmp_path):
    names = f"baselines=[{models}/net.onnx,{models}/last.onnx]"
    config = compose.resolve(compose.Request("search", (*TOY, "study=beside", f"folder={tmp_path}", names)))
    report = run_search(config)
    assert [item.name for item in report.baselines] == ["net", "last"]
    assert {item["name"] for item in report.to_dict()["baselines"]} == {"net", "last"}
    assert report.shipped in {number for number, _ in report.front}
    from nas.search.front import snapshot_of
    from nas.tracking import content
    from nas.tracking.report import description, front_document

    folder = tmp_path / "beside"
    snapshot = snapshot_of(StudyStore(folder / "store.sqlite"), folder)
    assert len(snapshot.front) == len(front_document(snapshot)["members"]) == len(report.front)
    assert "| baseline net |" in description(snapshot, "run")
    runs = [run for run in content.candidates(snapshot) if "baseline" in run.tags]
    assert [run.tags["on_front"] for run in runs] == ["false", "false"]
    pareto_html(snapshot, tmp_path / "pareto.html")
    assert "baselines (2)" in (tmp_path / "pareto.html").read_text()
    pareto_png(snapshot, tmp_path / "pareto.png")
    again = run_search(config)
    assert again.baselines == report.baselines


def test_a_broken_baseline_is_a_note_and_not_the_end_of_the_search(tmp_path):
    made = parts(tmp_path)
    request = BaselineRequest("gone", "gone.onnx", "0", tmp_path / "gone.onnx")
    with pytest.raises(NasError):
        measure_baseline(request, made.evaluator)

"""Registers the model that ships, once, under the alias ``champion``."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlflow.onnx
import numpy as np
import onnx
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from nas.protocols import SearchSnapshot, ShippedModel
from nas.runtime.model_file import check_model_file
from nas.tracking import content

ALIAS = "champion"
_SHIPPED = "hwnas.shipped"
_KEPT_BESIDE = ("model_card.json", "labels.txt", "preprocessing.json", "tokenizer.json", "run.py")


def model_name(experiment: str, study: str) -> str:
    """Return the name under which a study's models are registered: ``<experiment>.<study>``.

    A study has a name of its own, so that ``models:/<experiment>.<study>@champion`` is always what this search ships
    now: a second decision on the same front adds a version and moves the alias.
    """
    return re.sub(r"[^\w\-.]", "_", f"{experiment}.{study}", flags=re.ASCII)[:250]


def register(client: MlflowClient, experiment: str, experiment_id: str, run_id: str, snapshot: SearchSnapshot) -> None:
    """Register the shipped model with the onnx flavor, unless these very bytes are registered already.

    Args:
        client: of the store.
        experiment: name of the experiment.
        experiment_id: its id.
        run_id: parent run of the search.
        snapshot: of a search that ships a model.

    Raises:
        ModelFileError: ``model.onnx`` of the shipped folder is missing or damaged.
        MlflowException: the store refused.
    """
    shipped = snapshot.shipped
    assert shipped is not None
    name = model_name(experiment, snapshot.study)
    proto = check_model_file(shipped.folder / "model.onnx")
    bytes_id = hashlib.sha256((shipped.folder / "model.onnx").read_bytes()).hexdigest()[:16]
    mark = f"{content.study_id(snapshot)}-{shipped.trial}-{bytes_id}"
    found = _version_of(client, name, mark)
    if found is None:
        model = _logged_model(client, experiment_id, run_id, snapshot, proto, mark)
        _link(client, run_id, model)
        found = _new_version(client, name, model, run_id, shipped, mark)
    _show_version(client, found)
    if str(client.get_registered_model(name).aliases.get(ALIAS, "")) != str(found.version):
        client.set_registered_model_alias(name, ALIAS, found.version)


def _version_of(client: MlflowClient, name: str, mark: str) -> ModelVersion | None:
    versions = client.search_model_versions(f"name = '{name}'")
    marked = [version for version in versions if version.tags.get(_SHIPPED) == mark]
    return min(marked, key=lambda version: int(version.version), default=None)


def _logged_model(
    client: MlflowClient, experiment_id: str, run_id: str, snapshot: SearchSnapshot, proto: onnx.ModelProto, mark: str
) -> LoggedModel:
    """Return the logged model with this mark, made where it is missing, completed where its upload was cut."""
    shipped = snapshot.shipped
    assert shipped is not None
    found = client.search_logged_models([experiment_id], filter_string=f"tags.`{_SHIPPED}` = '{mark}'")
    model = found[0] if found else None
    if model is None:
        values = {point.name: f"{point.value:g}" for point in content.search_metrics(snapshot)}
        params = {name: value for name, value in values.items() if name.startswith("shipped_")}
        label = f"trial-{shipped.trial:04d}"
        model = client.create_logged_model(experiment_id, label, run_id, {_SHIPPED: mark}, params, "onnx")
    if str(model.status) != "READY":
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            _save(proto, shipped, Path(folder) / "model", model, run_id)
            client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        model = client.finalize_logged_model(model.model_id, "READY")
    return model


def _save(proto: onnx.ModelProto, shipped: ShippedModel, folder: Path, model: LoggedModel, run_id: str) -> None:
    beside = [str(shipped.folder / name) for name in _KEPT_BESIDE if (shipped.folder / name).is_file()]
    mlflow.onnx.save_model(
        proto,
        str(folder),
        mlflow_model=Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id),
        signature=signature_of(proto),
        # Inferring them would start a process that loads the model, for many seconds.
        pip_requirements=[f"{package}=={version(package)}" for package in ("onnx", "onnxruntime", "numpy")],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        extra_files=beside or None,
    )


def signature_of(proto: onnx.ModelProto) -> ModelSignature:
    """Return the tensors that a model reads and writes, free sizes as -1."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    reads = [value for value in proto.graph.input if value.name not in stored]
    return ModelSignature(_schema(reads), _schema(list(proto.graph.output)))


def _schema(values: list[onnx.ValueInfoProto]) -> Schema:
    specs: list[ColSpec | TensorSpec] = []
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
        specs.append(TensorSpec(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape, value.name))
    return Schema(specs)


def _link(client: MlflowClient, run_id: str, model: LoggedModel) -> None:
    outputs = client.get_run(run_id).outputs
    linked = {output.model_id for output in outputs.model_outputs} if outputs else set()
    if model.model_id not in linked:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])


def _show_version(client: MlflowClient, found: ModelVersion) -> None:
    """Tell the model which version it became; MLflow's page of the run reads it from this tag."""
    model = client.get_logged_model(found.model_id) if found.model_id else None
    if model is not None and MLFLOW_MODEL_VERSIONS not in model.tags:
        text = json.dumps([{"name": found.name, "version": int(found.version)}])
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: text})


def _new_version(
    client: MlflowClient, name: str, model: LoggedModel, run_id: str, shipped: ShippedModel, mark: str
) -> ModelVersion:
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name, description="What a hardware-aware search ships; alias champion.")
    return client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=run_id,
        tags={_SHIPPED: mark, "trial": str(shipped.trial), "rule": shipped.rule},
        description=shipped.reason,
        model_id=model.model_id,
        await_creation_for=0,
    )

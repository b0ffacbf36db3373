"""The ``baselines`` of a search's config: read and checked at the start, measured in a worker at the end."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nas.baselines import BaselineRequest, failed, measure_baseline
from nas.config.instantiate import check_target, instantiate
from nas.config.parts import Parts
from nas.errors import ConfigError, unknown_name
from nas.evaluation import Baseline
from nas.objective import Objective
from nas.protocols import Executor, Job
from nas.runtime.model_file import check_model_file
from nas.store import StudyStore

_KEYS = ("model", "module", "name", "mean", "std", "weights", "resolution")
_FORMS = (
    "expected a file such as model.onnx, a class such as my_net.MyNet, or a mapping of model= or module= with name, "
    "mean, std, weights, resolution"
)


def read_requests(parts: Parts) -> list[tuple[BaselineRequest, Mapping[str, Any] | None]]:
    """Return what the config asks to be put beside the candidates, each with the node of its module or None.

    Raises:
        ConfigError: an entry is neither a file nor a class that a config may name.
        ModelFileError: a file is missing, damaged, or reaches outside its folder.
    """
    requests: list[tuple[BaselineRequest, Mapping[str, Any] | None]] = []
    for index, entry in enumerate(parts.config.get("baselines") or ()):
        where = f"baselines[{index}]"
        fields = _fields(entry, where)
        request, module = _request(fields, where, parts)
        taken = {other.name for other, _ in requests}
        if request.name in taken:
            request = replace(request, name=f"{request.name}-{index}")
        requests.append((request, module))
    return requests


def _fields(entry: Any, where: str) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"model": entry} if entry.endswith(".onnx") or "/" in entry else {"module": {"_target_": entry}}
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}={entry!r}: {_FORMS}.")
    for key in entry:
        if key not in _KEYS:
            raise unknown_name(f"key of {where}", str(key), _KEYS)
    fields = dict(entry)
    if isinstance(fields.get("module"), str):
        fields["module"] = {"_target_": fields["module"]}
    if ("model" in fields) == ("module" in fields):
        raise ConfigError(f"{where} must name either a model or a module; {_FORMS}.")
    return fields


def _request(fields: Mapping[str, Any], where: str, parts: Parts) -> tuple[BaselineRequest, Mapping[str, Any] | None]:
    module, digest = fields.get("module"), hashlib.sha256()
    model = Path(fields["model"]) if "model" in fields else None
    weights = Path(fields["weights"]) if fields.get("weights") else None
    if model is not None:
        check_model_file(model)
        digest.update(model.read_bytes())
    else:
        check_target(module, f"{where}.module")
        if weights is not None:
            if not weights.is_file():
                raise ConfigError(f"{where}.weights={weights} is not a file; expected safetensors")
            digest.update(weights.read_bytes())
    source = str(model) if model is not None else str((module or {})["_target_"])
    evaluator = parts.evaluator
    depends = (evaluator.fidelity, evaluator.screen.device.key, evaluator.runtime.version, parts.meter is None)
    digest.update(json.dumps([dict(fields), *depends], sort_keys=True, default=str).encode())
    name = str(fields.get("name") or (model.stem if model is not None else source.rsplit(".", 1)[-1]))
    request = BaselineRequest(
        name=re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".") or "baseline",
        source=source,
        key=digest.hexdigest()[:16],
        model=model,
        mean=_numbers(fields.get("mean"), f"{where}.mean"),
        std=_numbers(fields.get("std"), f"{where}.std"),
        weights=weights,
        resolution=int(fields.get("resolution") or max(parts.config["data"].get("resolutions") or [32])),
    )
    return request, module


def _numbers(given: Any, where: str) -> tuple[float, ...] | None:
    if given is None:
        return None
    values = given if isinstance(given, list) else [given]
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values) or not values:
        raise ConfigError(f"{where}={given!r}: expected a number per channel, on the scale from 0 to 1")
    return tuple(float(value) for value in values)


def make_baseline_job(payload: Mapping[str, Any]) -> Job:
    """Make the job of a worker that measures baselines, given by their index in the config.

    Args:
        payload: as for :func:`nas.config.parts.make_job`.
    """
    objectives = tuple(Objective(**fields) for fields in payload["objectives"])
    parts = Parts(payload["config"], Path(payload["folder"]), objectives)

    def job(task: Mapping[str, Any]) -> dict[str, Any]:
        request, module = read_requests(parts)[task["baseline"]]
        make: Callable[[], Any] | None = None
        if module is not None:
            node = module

            def make() -> Any:
                import torch

                torch.manual_seed(parts.evaluator.seed)
                made = instantiate(node, (), f"baselines[{task['baseline']}].module", **_task(node, parts))
                if not isinstance(made, torch.nn.Module):
                    raise ConfigError(f"{node['_target_']} makes a {type(made).__name__}; expected a torch.nn.Module")
                return made

        return measure_baseline(request, parts.evaluator, make).to_dict()

    return job


def _task(node: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    """Return the data's task for a module that takes one."""
    maker = check_target(node, "baselines")

    return {"task": parts.dataset.task} if "task" in inspect.signature(maker).parameters else {}


def run_baselines(
    parts: Parts, store: StudyStore, make_executor: Callable[[], Executor], notes: list[str]
) -> Sequence[Baseline]:
    """Measure what the store does not have yet and keep it there; a baseline that fails is noted, not raised."""
    requests = read_requests(parts)
    known = {item["key"]: Baseline.from_dict(item) for item in store.get("baselines", [])}
    missing = [index for index, (request, _) in enumerate(requests) if request.key not in known]
    if missing:
        executor = make_executor()
        try:
            waiting = {executor.submit({"baseline": index}): index for index in missing}
            while waiting:
                for outcome in executor.wait():
                    request = requests[waiting.pop(outcome.job)][0]
                    made = Baseline.from_dict(outcome.result) if outcome.result else None
                    known[request.key] = made or failed(request, f"{outcome.kind}: {outcome.reason}")
        finally:
            executor.close()
    found = [replace(known[request.key], name=request.name) for request, _ in requests]
    store.put("baselines", [asdict(item) for item in found if not item.reason])
    for item in found:
        said = item.reason or "; ".join(item.notes)
        if said:
            notes.append(f"baseline {item.name}: {said}")
    return found

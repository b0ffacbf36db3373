"""At which input sizes a model file is timed: one size for most, prompt and single token for a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from nas.errors import ModelFileError
from nas.runtime.model_file import check_model_file

VARIANTS_KEY = "hwnas.variants"
_WHOLE: Mapping[str, Mapping[str, int]] = {"latency_ms": {}}


def timed_variants(model: Path) -> Mapping[str, Mapping[str, int]]:
    """Return metric to the sizes of the free axes at which it is timed, from the file's metadata.

    A file that says nothing has one, ``latency_ms``, with every free axis at 1.

    Args:
        model: an ONNX file whose metadata may hold ``hwnas.variants``, a JSON object of objects of whole numbers.

    Raises:
        ModelFileError: the file is damaged, or the metadata has another form.
    """
    said = {entry.key: entry.value for entry in check_model_file(model).metadata_props}.get(VARIANTS_KEY)
    if said is None:
        return _WHOLE
    try:
        variants = json.loads(said)
        fits = bool(variants) and all(
            metric.endswith("_ms") and all(isinstance(size, int) and size >= 0 for size in sizes.values())
            for metric, sizes in variants.items()
        )
    except (ValueError, AttributeError, TypeError):
        fits = False
    if not fits:
        raise ModelFileError(
            f"{model}: metadata {VARIANTS_KEY}={said[:100]}; expected an object of metrics in ms to sizes by the names "
            'of free axes, such as {"token_ms": {"tokens": 1, "past": 127}}. Remove it, or export the model again.'
        )
    return dict(variants)

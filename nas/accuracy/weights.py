"""Trained weights on disk as safetensors, which hold tensors and no code."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nas.errors import ModelFileError


def save_weights(module: nn.Module, path: Path) -> None:
    """Write all parameters and buffers; the file appears whole or not at all.

    Args:
        module: its state dict is written, contiguous and on the CPU.
        path: file to write, replaced if it exists.
    """
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    save_file(state, draft)
    os.replace(draft, path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Read what :func:`save_weights` wrote into a module of the same architecture.

    Raises:
        ModelFileError: missing, not safetensors, or weights of another architecture.
    """
    if not path.is_file():
        raise ModelFileError(f"no weights at {path}; expected a file written by save_weights")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read as safetensors: {error}") from error
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ModelFileError(f"{path} holds weights of another architecture: {error}") from error

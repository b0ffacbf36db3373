"""A small network on what a ridge leaves, trained by torch; plain arrays once fitted, and numpy predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_models.ridge import RelativeRidge, folds

Array = NDArray[np.float64]

_MEMBERS = 3
_FOLDS = 3
_HIDDEN = 32
_BATCH = 64
_STEPS = 1000
_RATE = 3e-3
_DECAY = 1.0
_FARTHEST = 4.0  # standard deviations of a feature, beyond which it is cut: a network extrapolates badly


class SmallNetwork:
    """A ridge times the exponential of two hidden layers, the mean of three trainings; its deviation is a share.

    Alone, such a network ranks the tables of measurements worse than the ridge does: a thousand rows are few.
    """

    def fit(self, blocks: Mapping[str, Array], target: Array, groups: NDArray[np.int64]) -> SmallNetwork:
        """Learn; returns self."""
        rows = np.hstack(list(blocks.values()))
        self._mean, spread = rows.mean(axis=0), rows.std(axis=0)
        self._scale = np.where(spread > 1e-9, spread, np.inf)
        self._ridge = RelativeRidge().fit(blocks, target, groups)
        # What the ridge would have said of a row that it has not seen is what its errors will be.
        base, _ = self._ridge.left_out()
        logs = np.log(target / base)
        self._spread = max(float(np.sqrt(np.mean(np.clip(logs, -0.5, 0.5) ** 2))), 1e-9)
        left_out = [leave for _, leave in folds(groups, _FOLDS)]
        # One more than there are folds: the last learns from all rows.
        known = np.ones((len(left_out) + 1, len(target)))
        for index, leave in enumerate(left_out):
            known[index, leave] = 0.0
        layers = _train(self._scaled(rows), logs / self._spread, known)
        outside = np.empty(len(target))
        for index, leave in enumerate(left_out):
            members = {name: values[index * _MEMBERS : (index + 1) * _MEMBERS] for name, values in layers.items()}
            outside[leave] = base[leave] * self._factor(members, rows[leave])
        self._layers = {name: values[-_MEMBERS:] for name, values in layers.items()}
        self._outside = outside
        self._share = float(np.sqrt(np.mean(np.minimum(np.abs(outside / target - 1), 1.0) ** 2)))
        return self

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and deviation of each row learned from, predicted without its group."""
        return self._outside, self._share * self._outside

    def predict(self, blocks: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return mean and deviation per row."""
        base, _ = self._ridge.predict(blocks)
        mean = base * self._factor(self._layers, np.hstack(list(blocks.values())))
        return mean, self._share * mean

    def to_arrays(self) -> dict[str, Array]:
        """Return all that prediction needs as plain arrays."""
        ridge = {f"ridge/{name}": values for name, values in self._ridge.to_arrays().items()}
        layers = {f"layer/{name}": values for name, values in self._layers.items()}
        return {
            **ridge,
            **layers,
            "mean": self._mean,
            "scale": self._scale,
            "numbers": np.array([self._spread, self._share]),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> SmallNetwork:
        """Return the model that ``to_arrays`` was called on."""
        model = SmallNetwork()
        model._spread, model._share = (float(value) for value in arrays["numbers"])
        model._mean, model._scale = arrays["mean"], arrays["scale"]
        under = {
            kind: {name.removeprefix(kind): arrays[name] for name in arrays if name.startswith(kind)}
            for kind in ("ridge/", "layer/")
        }
        model._ridge, model._layers = RelativeRidge.from_arrays(under["ridge/"]), under["layer/"]
        return model

    def _scaled(self, rows: Array) -> Array:
        scaled: Array = np.clip((rows - self._mean) / self._scale, -_FARTHEST, _FARTHEST)
        return scaled

    def _factor(self, layers: Mapping[str, Array], rows: Array) -> Array:
        said = _forward(np, layers, self._scaled(rows)).mean(axis=0)
        factor: Array = np.exp(np.clip(said * self._spread, -1.0, 1.0))
        return factor


def _forward(library: Any, layers: Mapping[str, Any], rows: Any) -> Any:
    """Return what each network says, shape (networks, rows), in numpy or in torch.

    Args:
        library: ``numpy`` or ``torch``.
        layers: stacked over the networks: ``first`` (networks, columns, hidden), ``second`` (networks, hidden, hidden),
            ``last`` (networks, hidden, 1), and their biases.
        rows: (rows, columns), scaled.
    """
    wide = library.tanh(rows @ layers["first"] + layers["first_bias"])
    deep = library.tanh(wide @ layers["second"] + layers["second_bias"])
    return (deep @ layers["last"] + layers["last_bias"])[..., 0]


def _train(rows: Array, target: Array, known: Array) -> dict[str, Array]:
    """Return the layers of ``_MEMBERS`` networks for each row of ``known``, all trained side by side.

    Args:
        rows: (rows, columns), scaled.
        target: (rows,), of magnitude 1.
        known: (sets, rows), 1 where a set's networks learn from a row.
    """
    import torch

    rng = np.random.default_rng(0)
    networks, columns = len(known) * _MEMBERS, rows.shape[1]

    def drawn(inputs: int, outputs: int, factor: float) -> Any:
        values = rng.normal(0, factor / np.sqrt(inputs), (networks, inputs, outputs))
        return torch.tensor(values, dtype=torch.float32, requires_grad=True)

    def zeros(outputs: int) -> Any:
        return torch.zeros((networks, 1, outputs), requires_grad=True)

    layers = {
        "first": drawn(columns, _HIDDEN, 1.0),
        "first_bias": zeros(_HIDDEN),
        "second": drawn(_HIDDEN, _HIDDEN, 1.0),
        "second_bias": zeros(_HIDDEN),
        "last": drawn(_HIDDEN, 1, 0.1),
        "last_bias": zeros(1),
    }
    given, wanted = (torch.tensor(values, dtype=torch.float32) for values in (rows, target))
    shares = torch.tensor(np.repeat(known, _MEMBERS, axis=0), dtype=torch.float32)
    optimizer = torch.optim.AdamW(list(layers.values()), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS, pct_start=0.1)
    loss = torch.nn.HuberLoss(reduction="none", delta=1.0)
    order = np.empty(0, dtype=np.int64)
    for _ in range(_STEPS):
        if len(order) < min(_BATCH, len(rows)):
            order = rng.permutation(len(rows))
        picked, order = order[:_BATCH], order[_BATCH:]
        said = _forward(torch, layers, given[picked])
        errors = loss(said, wanted[picked].expand_as(said)) * shares[:, picked]
        optimizer.zero_grad()
        errors.mean(dim=1).sum().backward()
        optimizer.step()
        schedule.step()
    return {name: values.detach().numpy().astype(np.float64) for name, values in layers.items()}

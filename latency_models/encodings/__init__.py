"""From the genotype of a row to blocks of features; one file per published space, none of which needs torch."""

from __future__ import annotations

from collections.abc import Callable

from latency_models.encodings import fbnet, hat, hw_gpt_bench, nasbench201
from latency_models.encodings.blocks import Encoding
from latency_models.tables import Table
from nas.errors import unknown_name

ENCODERS: dict[str, Callable[[Table], Encoding]] = {
    "nasbench201": nasbench201.encode,
    "fbnet": fbnet.encode,
    "hat": hat.encode,
    "hw_gpt_bench": hw_gpt_bench.encode,
}


def encoder(space: str) -> Callable[[Table], Encoding]:
    """Return what encodes the rows of ``space``.

    Raises:
        ConfigError: the space is unknown, with the corrected spelling.
    """
    if space not in ENCODERS:
        raise unknown_name("table space", space, ENCODERS)
    return ENCODERS[space]

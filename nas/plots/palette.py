"""Colours that people with any colour vision can tell apart, on white."""

from __future__ import annotations

# Okabe and Ito 2008, without the yellow that white swallows.
FRONT = "#0072B2"
BOUND = "#D55E00"
SHIPPED = "#E69F00"
FAINT = "#8C8C8C"
INK = "#222222"
KINDS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C")

# Viridis without its brightest sixth, which is too faint on white.
SCALE = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39")

"""Frames between this machine and a board: one JSON object per line, each of at most a mebibyte.

The board runs this file too, so it imports nothing but the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PROTOCOL = 1
FRAME_BYTES = 1 << 20
# In base64 these fill two thirds of a frame.
CHUNK_BYTES = 512 * 1024


class FrameError(ValueError):
    """A frame is too long, cut short, or no JSON object."""


def encode(frame: Mapping[str, Any]) -> bytes:
    """Return a frame as a line.

    Raises:
        FrameError: it is longer than ``FRAME_BYTES``.
    """
    line = json.dumps(frame, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    if len(line) > FRAME_BYTES:
        raise FrameError(f"a frame of {len(line)} bytes; at most {FRAME_BYTES} are allowed")
    return line


def decode(line: bytes) -> dict[str, Any]:
    """Return the object of a line.

    Raises:
        FrameError: the line is too long, lacks its end, or holds no JSON object.
    """
    if len(line) > FRAME_BYTES:
        raise FrameError(f"a frame of more than {FRAME_BYTES} bytes")
    if not line.endswith(b"\n"):
        raise FrameError("a frame without its end")
    try:
        frame = json.loads(line)
    # Deep nesting exhausts the stack before anything else.
    except (ValueError, RecursionError) as error:
        raise FrameError(f"no JSON: {error}") from error
    if not isinstance(frame, dict):
        raise FrameError(f"a {type(frame).__name__} in place of an object")
    return frame

"""What every source of pictures needs: decoding, one colour model, and words for what is broken or unbalanced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nas.errors import DataError

# What Pillow raises for something that is no readable picture.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

_NAMED_FILES = 5
_IMBALANCE = 5.0


def broken_notes(broken: Sequence[str], split: str) -> list[str]:
    """Return a sentence that counts what was skipped and names the first five, or none."""
    if not broken:
        return []
    return [f"{len(broken)} unreadable files of {split} skipped: {_named(broken)}"]


def refuse_mostly_broken(broken: Sequence[str], readable: int, where: str) -> None:
    """Raise DataError where more pictures are broken than readable: then it is the copy that is broken."""
    if readable and len(broken) > readable:
        raise DataError(
            f"{where}: {len(broken)} of {len(broken) + readable} pictures cannot be read: {_named(broken)}. "
            "Copy or download them again; what is left would be another data set"
        )


def _named(broken: Sequence[str]) -> str:
    more = f" and {len(broken) - _NAMED_FILES} more" if len(broken) > _NAMED_FILES else ""
    return ", ".join(broken[:_NAMED_FILES]) + more


def imbalance_notes(labels: Sequence[int], classes: Sequence[str]) -> list[str]:
    """Return a sentence with the counts of the largest and the smallest class where they are five apart, or none."""
    counts = Counter(labels)
    (most, most_count), (least, least_count) = counts.most_common()[0], counts.most_common()[-1]
    if most_count < _IMBALANCE * least_count:
        return []
    return [
        f"classes are unbalanced: {classes[most]} has {most_count} pictures, {classes[least]} {least_count}; "
        "accuracy favours the large ones"
    ]


def decode_picture(source: Path | IO[bytes], max_side: int) -> NDArray[np.uint8]:
    """Return a picture as (h, w, 1) if it is grey and (h, w, 3) if not, its longer side at most ``max_side``.

    Args:
        source: file, or its bytes as a stream.
        max_side: pixels.

    Raises:
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: not a readable picture.
    """
    with Image.open(source) as opened:
        picture: Image.Image = opened
        if picture.mode.startswith("I") or picture.mode == "F":
            values = np.asarray(picture, dtype=np.float64) / 257.0
            picture = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
            picture.info["exif"] = opened.info.get("exif", b"")
        if picture.mode not in ("L", "RGB"):
            grey = picture.mode in ("1", "LA", "La")
            exif = picture.getexif()
            picture = picture.convert("L" if grey else "RGB")
            picture.info["exif"] = exif.tobytes()
        if max(picture.size) > max_side:
            # For a JPEG this also makes the decoder shrink by 2, 4 or 8 first, which bounds memory and time.
            picture.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
        array = np.array(ImageOps.exif_transpose(picture), dtype=np.uint8)
    if array.ndim == 2:
        return array[:, :, None]
    if (array[:, :, :1] == array).all():
        return array[:, :, :1].copy()
    return array


def one_colour_model(groups: Sequence[list[NDArray[np.uint8]]]) -> None:
    """Turn grey pictures to RGB in place, unless all are grey."""
    if all(image.shape[2] == 1 for images in groups for image in images):
        return
    for images in groups:
        for index, image in enumerate(images):
            if image.shape[2] == 1:
                images[index] = np.repeat(image, 3, axis=2)

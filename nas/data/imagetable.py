"""Pictures in Parquet files, as dataset hubs offer them: a column of encoded pictures and a column of labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nas.data import ImageDataset, Split
from nas.data.drawn import Shares
from nas.data.pictures import (
    UNREADABLE,
    broken_notes,
    decode_picture,
    imbalance_notes,
    one_colour_model,
    refuse_mostly_broken,
)
from nas.data.stratify import channel_statistics
from nas.errors import ConfigError, DataError

LAYOUT = (
    "Expected a folder with train-*.parquet and, where you have them, validation-*.parquet and test-*.parquet, each "
    "with a column of pictures (a struct whose field `bytes` is a PNG or JPEG, or the bytes) and a column of labels "
    "(numbers from 0, or names)"
)
_FILES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


@dataclass
class _Rows:
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    labels: list[int | str] = field(default_factory=list)
    names: list[str | int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def chosen(self, part: NDArray[np.int64], labels: NDArray[np.int64]) -> Split:
        """Return some rows as a split."""
        return Split([self.images[index] for index in part], labels[part])


class ImageTable:
    """Pictures of any size in Parquet files; grey where all are grey, shrunk on load so that memory stays bounded.

    Args:
        path: folder of the files, or folder in which they lie somewhere below.
        name: of the data set; None takes the folder's.
        image: column of the pictures.
        label: column of the labels.
        classes: names in the order of the numbers; None takes the names in the column, or the numbers as names.
        resolutions: input sizes in pixels that a search space may choose from.
        validation_share: share of the training pictures that the search scores on, where there are no such files.
        test_share: share read once, for what ships, where there are no such files.
        seed: of the stratified split.
        licence: of the pictures, for the model card.
        max_side: longer side in pixels to which larger pictures are shrunk on load.
    """

    def __init__(
        self,
        path: str | None,
        name: str | None = None,
        image: str = "image",
        label: str = "label",
        classes: Sequence[str] | None = None,
        resolutions: Sequence[int] = (32, 48, 64),
        validation_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
        licence: str = "unknown",
        max_side: int = 256,
    ) -> None:
        if max_side < max(resolutions):
            raise ConfigError(
                f"max_side={max_side} is below the largest resolution {max(resolutions)}; raise it to that"
            )
        self.path = path
        self.name = name or (Path(path).name if path else "imagetable")
        self.image, self.label = image, label
        self.classes = tuple(classes) if classes else None
        self.resolutions = tuple(resolutions)
        self._shares = Shares(validation_share, test_share, seed)
        self.licence, self.max_side = licence, max_side

    def load(self) -> ImageDataset:
        """Read all rows, name and skip what is broken, and split what has no files of its own.

        Raises:
            DataError: no such folder, files or columns, fewer than two classes, or mostly broken pictures.
            ConfigError: the shares leave nothing to train on.
        """
        files = self._files()
        given = {split: self._read(paths, split) for split, paths in files.items() if paths}
        classes = self._classes(given)
        one_colour_model([rows.images for rows in given.values()])
        labels = {split: _numbers(rows.labels, classes, split) for split, rows in given.items()}
        splits, members = self._split(given, labels)
        mean, std = channel_statistics(splits["train"].images)
        return ImageDataset(
            name=self.name,
            licence=self.licence,
            classes=classes,
            mean=mean,
            std=std,
            splits=splits,
            notes=self._notes(given, labels, classes),
            members=members,
        )

    def _files(self) -> dict[str, list[Path]]:
        if not self.path:
            raise DataError(f"data.path is not set. {LAYOUT}; pass the folder as data.path=FOLDER.")
        root = Path(self.path)
        if not root.is_dir():
            raise DataError(f"data.path={self.path} is not a folder. {LAYOUT}.")
        found = {
            split: sorted({path for name in names for path in root.rglob(f"{name}-*.parquet")})
            or sorted({path for name in names for path in root.rglob(f"{name}.parquet")})
            for split, names in _FILES.items()
        }
        if not found["train"]:
            have = ", ".join(sorted(path.name for path in root.rglob("*.parquet"))[:5]) or "no parquet file"
            raise DataError(f"no train-*.parquet in {self.path}, which has {have}. {LAYOUT}.")
        return found

    def _read(self, files: Sequence[Path], split: str) -> _Rows:
        rows = _Rows()
        for path in files:
            try:
                file = pq.ParquetFile(path)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} cannot be read as parquet: {error}. Download it again.") from error
            absent = sorted({self.image, self.label} - set(file.schema_arrow.names))
            if absent:
                raise DataError(
                    f"{path} lacks the column {', '.join(absent)}; it has {', '.join(file.schema_arrow.names)}. "
                    "Name them by data.image= and data.label=."
                )
            start = 0
            for batch in file.iter_batches(256, columns=[self.image, self.label]):
                pictures, labels = batch.column(0).to_pylist(), batch.column(1).to_pylist()
                for offset, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
                    self._add(rows, picture, label, f"{path.name} row {start + offset}")
                start += len(labels)
        refuse_mostly_broken(rows.broken, len(rows.images), f"{self.path} ({split})")
        if not rows.images:
            raise DataError(f"{self.path} has no readable picture for {split}. {LAYOUT}.")
        return rows

    def _add(self, rows: _Rows, picture: Any, label: Any, place: str) -> None:
        raw = picture.get("bytes") if isinstance(picture, dict) else picture
        path = picture.get("path") if isinstance(picture, dict) else None
        if label is None or not isinstance(raw, bytes):
            rows.broken.append(f"{path or place} ({'no label' if label is None else 'no bytes'})")
            return
        try:
            image = decode_picture(io.BytesIO(raw), self.max_side)
        except UNREADABLE as error:
            rows.broken.append(f"{path or place} ({type(error).__name__})")
            return
        rows.images.append(image)
        rows.labels.append(label)
        rows.names.append(str(path or place))

    def _classes(self, given: dict[str, _Rows]) -> tuple[str, ...]:
        seen = set(given["train"].labels)
        if self.classes is not None:
            classes = self.classes
        elif all(isinstance(label, int) for label in seen):
            classes = tuple(str(label) for label in range(max(int(label) for label in seen) + 1))
        else:
            classes = tuple(sorted(str(label) for label in seen))
        if len(classes) < 2:
            raise DataError(f"{self.path} has the one class '{classes[0]}'; a classifier needs at least two.")
        known = {*classes, *range(len(classes))}
        numbers = {int(label) if isinstance(label, int) else classes.index(label) for label in seen if label in known}
        empty = [name for number, name in enumerate(classes) if number not in numbers]
        if empty:
            raise DataError(f"{self.path} has no readable training picture of {', '.join(empty)}; correct data.classes")
        return classes

    def _split(
        self, given: dict[str, _Rows], labels: dict[str, NDArray[np.int64]]
    ) -> tuple[dict[str, Split], dict[str, list[str | int]]]:
        parts = self._shares.draw(labels["train"], given, str(self.path), "pictures")
        splits, members = {}, {}
        for name in ("train", "validation", "test"):
            source = name if name not in parts else "train"
            drawn = parts.get(name, np.arange(len(given[source].labels)))
            splits[name] = given[source].chosen(drawn, labels[source])
            members[name] = [given[source].names[index] for index in drawn]
        return splits, members

    def _notes(
        self, given: dict[str, _Rows], labels: dict[str, NDArray[np.int64]], classes: Sequence[str]
    ) -> tuple[str, ...]:
        notes = self._shares.notes(given, "files")
        for split, rows in given.items():
            notes += broken_notes(rows.broken, split)
        return (*notes, *imbalance_notes(labels["train"].tolist(), classes))


def _numbers(labels: Sequence[int | str], classes: Sequence[str], split: str) -> NDArray[np.int64]:
    """Return class indices of numbers or names, all of them known."""
    index = {name: number for number, name in enumerate(classes)}
    numbers = [label if isinstance(label, int) else index.get(str(label), -1) for label in labels]
    wrong = sorted(
        {str(label) for label, number in zip(labels, numbers, strict=True) if not 0 <= number < len(classes)}
    )
    if wrong:
        raise DataError(
            f"labels of {split} hold {', '.join(wrong[:5])}; expected 0 to {len(classes) - 1} or one of "
            f"{', '.join(classes[:10])}. Correct data.classes."
        )
    return np.asarray(numbers, dtype=np.int64)

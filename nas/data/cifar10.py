"""CIFAR-10 from parquet files in the layout of the dataset hub; only the rows that are needed are decoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from nas.data import ImageDataset, Split
from nas.data.stratify import channel_statistics, stratified_parts
from nas.errors import ConfigError, DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LICENCE = "none stated by the source (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009)"
LAYOUT = (
    "Expected a folder with train-*.parquet and test-*.parquet, each with the columns `img` (a struct whose field "
    "`bytes` is a PNG) and `label` (0 to 9). The dataset hub offers CIFAR-10 in this layout (files of the `plain_text` "
    "configuration); download them and pass the folder as data.path=FOLDER."
)


class Cifar10:
    """CIFAR-10 (Krizhevsky 2009): 50,000 train and 10,000 test pictures of 32x32 in 10 classes.

    Train and validation pictures come from the train files, test pictures from the test files, each drawn with
    equal shares per class.

    Args:
        path: folder of the parquet files.
        resolutions: input sizes in pixels that a search space may choose from.
        train_images: how many to train on; None takes all that validation leaves.
        validation_images: how many to score on; None takes all that training leaves.
        test_images: how many to read once, for what ships; None takes all.
        seed: of the draw.
    """

    name = "cifar10"

    def __init__(
        self,
        path: str | None,
        resolutions: Sequence[int] = (16, 24, 32),
        train_images: int | None = 10_000,
        validation_images: int | None = 5_000,
        test_images: int | None = None,
        seed: int = 0,
    ) -> None:
        if train_images is None and validation_images is None:
            raise ConfigError(
                "train_images and validation_images are both null, and each would take all that the other leaves; "
                "give one of them, for example data.validation_images=5000"
            )
        self.path = path
        self.resolutions = tuple(resolutions)
        self.train_images = train_images
        self.validation_images = validation_images
        self.test_images = test_images
        self.seed = seed

    def load(self) -> ImageDataset:
        """Read the labels of all rows, draw, and decode what was drawn.

        Raises:
            DataError: no such folder or files, a broken file or picture, or fewer pictures than asked for.
        """
        train_files, test_files = self._files("train"), self._files("test")
        labels, test_labels = _labels(train_files), _labels(test_files)
        train_size, validation_size = self._train_sizes(len(labels))
        test_size = len(test_labels) if self.test_images is None else self.test_images
        _expect(test_size, len(test_labels), "test_images", "test")
        train, validation = stratified_parts(labels, (train_size, validation_size), self.seed)
        (test,) = stratified_parts(test_labels, (test_size,), self.seed)
        pictures = _decode(train_files, np.concatenate([train, validation]))
        splits = {
            "train": Split(pictures[:train_size], labels[train]),
            "validation": Split(pictures[train_size:], labels[validation]),
            "test": Split(_decode(test_files, test), test_labels[test]),
        }
        mean, std = channel_statistics(splits["train"].images)
        return ImageDataset(
            name=self.name,
            licence=LICENCE,
            classes=CLASSES,
            mean=mean,
            std=std,
            splits=splits,
            notes=(
                f"{train_size} of {len(labels)} train pictures to train on, {validation_size} to validate, "
                f"{test_size} of {len(test_labels)} test pictures; stratified by seed {self.seed}",
            ),
            members={"train": train.tolist(), "validation": validation.tolist(), "test": test.tolist()},
        )

    def _files(self, split: str) -> list[Path]:
        if not self.path:
            raise DataError(f"data.path is not set; CIFAR-10 does not come with this package. {LAYOUT}")
        folder = Path(self.path)
        if not folder.is_dir():
            raise DataError(f"data.path={self.path} is not a folder. {LAYOUT}")
        files = sorted(folder.glob(f"{split}-*.parquet"))
        if not files:
            raise DataError(f"no {split}-*.parquet in {self.path}. {LAYOUT}")
        return files

    def _train_sizes(self, available: int) -> tuple[int, int]:
        train, validation = self.train_images, self.validation_images
        if validation is None:
            validation = available - (train or 0)
        if train is None:
            train = available - validation
        _expect(train, available, "train_images", "train")
        _expect(validation, available, "validation_images", "train")
        if train + validation > available:
            raise DataError(
                f"train_images {train} and validation_images {validation} add up to more than the {available} pictures "
                "of the train files; lower one, or set one to null to take the rest"
            )
        return train, validation


def _expect(wanted: int, available: int, setting: str, split: str) -> None:
    if not 0 < wanted <= available:
        raise DataError(f"{setting}={wanted}; expected 1 to {available}, the pictures in the {split} files")


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}. {LAYOUT}") from error


def _labels(files: Sequence[Path]) -> NDArray[np.int64]:
    """Return the labels of all rows of all files, checked to lie in 0..9."""
    columns = []
    for path in files:
        try:
            column = _open(path).read(columns=["label"]).column("label")
            columns.append(np.asarray(column.to_numpy(), dtype=np.int64))
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} has no readable column `label`: {error}. {LAYOUT}") from error
    labels = np.concatenate(columns)
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(CLASSES):
        given = f"{labels.min()} to {labels.max()}" if len(labels) else "no rows"
        raise DataError(f"labels of {files[0].parent} are {given}; expected 0 to 9. {LAYOUT}")
    return labels


def _decode(files: Sequence[Path], rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """Decode the given rows, counted over all files, in the given order; row groups are read one at a time."""
    order = np.argsort(rows, kind="stable")
    wanted = rows[order]
    decoded: dict[int, NDArray[np.uint8]] = {}
    start = 0
    for path in files:
        file = _open(path)
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)]
            if len(here):
                for row, raw in zip(here, _encoded(file, group, here - start, path), strict=True):
                    decoded[int(row)] = _picture(raw, path, int(row))
            start = end
    return [decoded[int(row)] for row in rows]


def _encoded(file: pq.ParquetFile, group: int, rows: NDArray[np.int64], path: Path) -> list[Any]:
    """Return the encoded pictures of some rows of a row group; ``img`` is a struct, or bytes, or flat ``img.bytes``."""
    names = file.schema_arrow.names
    column_name = next((name for name in ("img", "img.bytes") if name in names), None)
    if column_name is None:
        raise DataError(f"{path} has the columns {', '.join(names)}. {LAYOUT}")
    try:
        table = file.read_row_group(group, columns=[column_name])
        column = table.column(column_name).combine_chunks().take(pa.array(rows))
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        encoded: list[Any] = column.to_pylist()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}, row group {group}: column `{column_name}` cannot be read: {error}. {LAYOUT}"
        ) from error
    return encoded


def _picture(raw: Any, path: Path, row: int) -> NDArray[np.uint8]:
    if not isinstance(raw, bytes):
        raise DataError(f"row {row} in the files beside {path} holds no encoded picture. {LAYOUT}")
    try:
        with Image.open(io.BytesIO(raw)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"row {row} in the files beside {path} is not a readable picture: {error}") from error

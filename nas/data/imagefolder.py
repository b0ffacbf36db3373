"""A user's own pictures: one folder per class; what is broken is named and skipped, what is hopeless is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data import ImageDataset, Split
from nas.data.drawn import Shares
from nas.data.pictures import (
    broken_notes,
    decode_picture,
    imbalance_notes,
    one_colour_model,
    refuse_mostly_broken,
)
from nas.data.stratify import channel_statistics
from nas.errors import ConfigError, DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
LAYOUT = (
    "Expected FOLDER/CLASS/*.png (or jpg, bmp, gif, tif, webp), split by seed, or FOLDER/train/CLASS/* with "
    "FOLDER/val/CLASS/* and FOLDER/test/CLASS/* where you have them; at least two classes. Pass the folder as "
    "data.path=FOLDER."
)
_SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class _Pictures:
    """Decoded pictures of one folder of classes."""

    images: list[NDArray[np.uint8]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class ImageFolder:
    """Pictures in one folder per class, decoded to 8 bits and shrunk on load so that memory stays bounded.

    If all pictures are grey, also those saved as RGB, the set has one channel; else all become RGB. EXIF
    orientation is applied, alpha is dropped, 16-bit grey is scaled by its own range of 0..65535.

    Args:
        path: folder in one of the layouts above.
        resolutions: input sizes in pixels that a search space may choose from.
        validation_share: share of the training pictures that the search scores on, where there is no val folder.
        test_share: share read once, for what ships, where there is no test folder.
        seed: of the stratified split.
        licence: of the pictures, for the model card.
        max_side: longer side in pixels to which larger pictures are shrunk on load, aspect kept; at least the
            largest resolution.
    """

    name = "imagefolder"

    def __init__(
        self,
        path: str | None,
        resolutions: Sequence[int] = (64, 96, 128),
        validation_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
        licence: str = "unknown",
        max_side: int = 256,
    ) -> None:
        if max_side < max(resolutions):
            raise ConfigError(
                f"max_side={max_side} is below the largest resolution {max(resolutions)}; pictures would be shrunk and "
                f"blown up again. Set data.max_side to {max(resolutions)} or more"
            )
        self.path = path
        self.resolutions = tuple(resolutions)
        self._shares = Shares(validation_share, test_share, seed)
        self.licence = licence
        self.max_side = max_side

    def load(self) -> ImageDataset:
        """Read all pictures and split what has no folder of its own.

        Raises:
            DataError: no such folder, no pictures, fewer than two classes, or a class without a readable picture.
            ConfigError: the shares leave nothing to train on.
        """
        root = self._root()
        folders = {split: _first_folder(root, names) for split, names in _SPLIT_FOLDERS.items()}
        train_root = folders["train"] or root
        classes = _classes(train_root)
        given = {"train": self._read(train_root, classes)}
        if folders["train"] is not None:
            for split in ("validation", "test"):
                folder = folders[split]
                if folder is not None:
                    _refuse_unknown_classes(folder, classes)
                    given[split] = self._read(folder, classes)
        for split, pictures in given.items():
            _refuse_empty(pictures, classes, folders[split] or root, every_class=split == "train")
        one_colour_model([pictures.images for pictures in given.values()])
        splits, members = self._split(given)
        mean, std = channel_statistics(splits["train"].images)
        return ImageDataset(
            name=root.resolve().name,
            licence=self.licence,
            classes=classes,
            mean=mean,
            std=std,
            splits=splits,
            notes=self._notes(given, classes),
            members=members,
        )

    def _root(self) -> Path:
        if not self.path:
            raise DataError(f"data.path is not set. {LAYOUT}")
        root = Path(self.path)
        if not root.is_dir():
            raise DataError(f"data.path={self.path} is not a folder. {LAYOUT}")
        return root

    def _read(self, folder: Path, classes: Sequence[str]) -> _Pictures:
        pictures = _Pictures()
        for label, name in enumerate(classes):
            for file in _picture_files(folder / name):
                try:
                    image = decode_picture(file, self.max_side)
                except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                    pictures.broken.append(f"{file.relative_to(folder)} ({type(error).__name__})")
                    continue
                pictures.images.append(image)
                pictures.labels.append(label)
                pictures.names.append(str(file.relative_to(folder)))
        refuse_mostly_broken(pictures.broken, len(pictures.images), str(folder))
        return pictures

    def _split(self, given: dict[str, _Pictures]) -> tuple[dict[str, Split], dict[str, list[str]]]:
        train = given["train"]
        labels = np.asarray(train.labels, dtype=np.int64)
        parts = self._shares.draw(labels, given, str(self.path), "pictures")
        splits = {name: Split([train.images[index] for index in part], labels[part]) for name, part in parts.items()}
        members = {name: [train.names[index] for index in part] for name, part in parts.items()}
        for name in ("validation", "test"):
            if name in given:
                splits[name] = Split(given[name].images, np.asarray(given[name].labels, dtype=np.int64))
                members[name] = given[name].names
        return splits, members

    def _notes(self, given: dict[str, _Pictures], classes: Sequence[str]) -> tuple[str, ...]:
        notes = self._shares.notes(given, "folders")
        for split, pictures in given.items():
            notes += broken_notes(pictures.broken, split)
        notes += imbalance_notes(given["train"].labels, classes)
        return tuple(notes)


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _picture_files(folder: Path) -> list[Path]:
    """Return the pictures below a class's folder, deeper folders included, in a stable order."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in files if path.is_file())


def _classes(folder: Path) -> tuple[str, ...]:
    names = _subfolders(folder)
    if len(names) < 2:
        given = f"one class folder, '{names[0]}'" if names else "no class folder"
        raise DataError(f"{folder} has {given}; a classifier needs at least two. {LAYOUT}")
    return tuple(names)


def _refuse_unknown_classes(folder: Path, classes: Sequence[str]) -> None:
    unknown = sorted(set(_subfolders(folder)) - set(classes))
    if unknown:
        raise DataError(f"{folder} has classes that the training folder lacks: {', '.join(unknown)}. {LAYOUT}")


def _refuse_empty(pictures: _Pictures, classes: Sequence[str], folder: Path, every_class: bool) -> None:
    broken = f" ({len(pictures.broken)} unreadable, such as {pictures.broken[0]})" if pictures.broken else ""
    if not pictures.images:
        raise DataError(f"{folder} has no readable picture{broken}. {LAYOUT}")
    empty = [name for label, name in enumerate(classes) if label not in set(pictures.labels)]
    if empty and every_class:
        raise DataError(
            f"{folder}: no readable picture of {', '.join(empty)}{broken}. Add pictures or remove the folder"
        )

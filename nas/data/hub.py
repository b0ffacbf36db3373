"""Pictures from a dataset hub by name, fetched by huggingface_hub where the machine is online."""

from __future__ import annotations

from collections.abc import Sequence

from nas.data import ImageDataset
from nas.data.imagetable import ImageTable
from nas.errors import DataError


class HubImages:
    """A data set of pictures on the hub, in Parquet files; what was fetched once is read from the hub's own cache.

    Args:
        repository: such as ``owner/name``.
        revision: branch, tag or commit; a commit makes the data repeatable.
        image: column of the pictures.
        label: column of the labels.
        classes: names in the order of the numbers; None takes the numbers as names.
        resolutions: input sizes in pixels that a search space may choose from.
        validation_share: share of the training pictures that the search scores on, where the hub has no such split.
        test_share: share read once, for what ships, where the hub has no such split.
        seed: of the stratified split.
        licence: of the pictures, for the model card.
        max_side: longer side in pixels to which larger pictures are shrunk on load.
    """

    def __init__(
        self,
        repository: str,
        revision: str = "main",
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
        self.name = repository.replace("/", "_")
        self._repository, self._revision = repository, revision
        self._columns, self._classes = (image, label), classes
        self._shares, self._seed = (validation_share, test_share), seed
        self._resolutions, self._licence, self._max_side = resolutions, licence, max_side

    def load(self) -> ImageDataset:
        """Fetch the Parquet files, then read them as :class:`nas.data.imagetable.ImageTable` does.

        Raises:
            DataError: huggingface_hub is not installed, the hub cannot be reached, or it has no such data set.
        """
        return ImageTable(
            self._fetch(),
            self.name,
            *self._columns,
            self._classes,
            self._resolutions,
            *self._shares,
            self._seed,
            self._licence,
            self._max_side,
        ).load()

    def _fetch(self) -> str:
        try:
            from huggingface_hub import snapshot_download
        except ImportError as error:
            raise DataError(
                "data=hub needs the package huggingface_hub; install it by pip install 'hwnas[hub]', or download the "
                "files and use data=imagetable data.path=FOLDER"
            ) from error
        try:
            folder: str = snapshot_download(
                self._repository, repo_type="dataset", revision=self._revision, allow_patterns=["*.parquet"]
            )
        # The library raises errors of its own, of its HTTP client and of the system; none may pass as our bug.
        except Exception as error:
            raise DataError(
                f"data.repository={self._repository} (revision {self._revision}) cannot be fetched: "
                f"{type(error).__name__}: {str(error)[:300]}. Check name and network, or use data=imagetable with "
                "files that you have"
            ) from error
        return folder

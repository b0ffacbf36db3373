"""Shows searches in MLflow from a thread of its own, so that neither its start nor its failure touches a search."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from nas.errors import NasError
from nas.protocols import DeviceGate, SearchSnapshot
from nas.tracking.address import hide_password, resolve_address
from nas.tracking.content import candidates

if TYPE_CHECKING:
    from nas.tracking.writer import StudyWriter

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_LAST_TRIES = 4
_REASON_LENGTH = 200


class MlflowTracker:
    """Keeps MLflow in agreement with the newest snapshot of a search.

    One daemon thread takes the newest snapshot from a mailbox with one slot; older ones are never written. It imports
    MLflow itself (seconds) and makes the tables of a new SQLite file (8 s the first time). An error is kept for the
    user, and the same snapshot is tried again with growing pauses.

    Args:
        uri: ``sqlite:///FOLDER/mlflow.db``, the URL of a server, or another database.
        artifacts: folder or URI of pages and models; None is beside the SQLite file, or as the server says.
        experiment: name of the MLflow experiment, made where it is missing.
        files_every_s: pages and pictures are drawn at most this often, in seconds, until the search ends.
        request_timeout_s: seconds for one request to a server.
        port: of the user interface in the command that ``close`` returns.
        folder: of the studies, for the command that ``close`` returns.
        gate: keeps the drawing of pages off the machine while a candidate is timed.

    Raises:
        ConfigError: MLflow cannot use such a store.
    """

    def __init__(
        self,
        uri: str = "sqlite:///runs/mlflow/mlflow.db",
        artifacts: str | None = None,
        experiment: str = "hwnas",
        files_every_s: float = 60.0,
        request_timeout_s: int = 10,
        port: int = 5000,
        folder: str = "runs",
        gate: DeviceGate | None = None,
    ) -> None:
        self._address = resolve_address(uri, artifacts)
        self._experiment, self._port, self._folder, self._gate = experiment, port, folder, gate
        self._files_every_s, self._request_timeout_s = files_every_s, request_timeout_s
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._newest: SearchSnapshot | None = None
        self._given, self._done, self._done_whole = 0, 0, False
        self._closing = self._stopped = False
        self._failure, self._last_tries = "", _LAST_TRIES
        self._there = 0
        self._place: tuple[str, str] | None = None

    def update(self, snapshot: SearchSnapshot, /) -> None:
        """Put a snapshot into the mailbox, over an older one that was not taken yet, and return at once."""
        with self._changed:
            self._newest = snapshot
            self._given += 1
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._work, name="hwnas-mlflow", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, timeout_s: float) -> str:
        """Write the newest snapshot with all its files, wait at most ``timeout_s``, and return one line.

        A store that refuses is tried four times over some 4 s; only a slow one takes the whole time.

        Returns:
            The shell command that opens the user interface with the page's URL behind it; or what MLflow lacks, why,
            and the command that adds it later.
        """
        with self._changed:
            if self._newest is None:
                return f"nothing was given to MLflow at {self._address.shown}"
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_done() or self._stopped, timeout_s)
            self._stopped = True
            self._changed.notify_all()
            return self._opened() if self._is_done() else self._left()

    def _is_done(self) -> bool:
        return self._done == self._given and self._done_whole

    def _opened(self) -> str:
        assert self._place is not None
        page = self._address.page(self._port, *self._place)
        command = self._address.command(self._port)
        return f"{command}  ->  {page}" if command else page

    def _left(self) -> str:
        assert self._newest is not None
        total = len(candidates(self._newest))
        missing = max(0, total - self._there)
        lacks = f"{missing} of {total} candidates are not written" if missing else "its last pages are not written"
        why = self._failure or "it is slow and the time is up"
        again = f"nas search resume={self._newest.study}" + (
            "" if self._folder == "runs" else f" folder={self._folder}"
        )
        return f"MLflow at {self._address.shown}: {lacks} ({why}); the search lost nothing. Add them later by: {again}"

    def _work(self) -> None:
        writer: StudyWriter | None = None
        pause_s, files_due = _FIRST_PAUSE_S, time.monotonic() + self._files_every_s
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._stopped:
                    return
                snapshot, given = self._newest, self._given
                whole = self._closing or time.monotonic() >= files_due
            assert snapshot is not None
            whole = whole or snapshot.finished
            try:
                writer = writer or self._connect()
                place = writer.write(snapshot, with_files=whole)
            except Exception as error:  # whatever a server, a driver or a full disk makes of it, the search goes on
                self._note_failure(error, writer)
                writer = None
                pause_s = self._rest(pause_s)
                continue
            pause_s = _FIRST_PAUSE_S
            if whole:
                files_due = time.monotonic() + self._files_every_s
            with self._changed:
                self._done, self._done_whole, self._place, self._failure = given, whole, place, ""
                self._there = writer.written or 0
                self._changed.notify_all()

    def _has_work(self) -> bool:
        return self._stopped or self._done != self._given or (self._closing and not self._done_whole)

    def _connect(self) -> StudyWriter:
        _bound_requests(self._request_timeout_s)
        if self._address.uri.startswith("sqlite:///"):
            os.makedirs(os.path.dirname(self._address.uri.removeprefix("sqlite:///")), exist_ok=True)
        from nas.tracking.writer import StudyWriter

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        return StudyWriter(self._address, self._experiment, self._gate)

    def _note_failure(self, error: Exception, writer: StudyWriter | None) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, NasError):
            text = f"{type(error).__name__}: {text}"
        text = text.replace(self._address.uri, hide_password(self._address.uri))
        with self._changed:
            self._failure = text[:_REASON_LENGTH]
            if writer is not None and writer.written is not None:
                self._there = writer.written

    def _rest(self, pause_s: float) -> float:
        """Wait before the next try and return the wait after it; the end of a search cuts a wait short."""
        with self._changed:
            if self._closing:
                self._last_tries -= 1
                if self._last_tries == 0:
                    self._stopped = True
                    self._changed.notify_all()
            was_closing = self._closing
            self._changed.wait_for(lambda: self._stopped or self._closing != was_closing, pause_s)
            if self._closing != was_closing:
                return _FIRST_PAUSE_S
        return min(2 * pause_s, _LONGEST_PAUSE_S)


def _bound_requests(timeout_s: int) -> None:
    """Set MLflow's limits where the user set none; they are read when its client is made."""
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in limits.items():
        os.environ.setdefault(name, value)

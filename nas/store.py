"""The record of one study: what was acknowledged here survives kill -9, and all else is rebuilt from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.errors import StoreError
from nas.evaluation import Evaluation, EvaluationKey

FORMAT = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS evaluations (
    key TEXT PRIMARY KEY, architecture TEXT NOT NULL, data TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS trials (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, evaluation TEXT REFERENCES evaluations (key),
    duplicate_of INTEGER, optuna TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial as the store keeps it.

    Args:
        number: 0, 1, 2, ... in the order of acknowledgement.
        state: ``complete``, ``infeasible``, ``failed`` or ``duplicate``.
        evaluation: of its architecture; None for a choice that was refused as degenerate.
        duplicate_of: number of the trial that was evaluated in its place, or None.
        optuna: JSON-ready fields from which Optuna's frozen trial is rebuilt.
    """

    number: int
    state: str
    evaluation: Evaluation | None
    duplicate_of: int | None
    optuna: Mapping[str, Any] = field(default_factory=dict)


class StudyStore:
    """One SQLite file per study; each call that writes has been synced to disk when it returns.

    Args:
        path: the file; made, with its folder, where missing.

    Raises:
        StoreError: the file is no store, or was written by a newer format.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path} is not a store of this framework ({error}); name another study") from error
        written = self.get("format")
        if written is None:
            self.put("format", FORMAT)
        elif written > FORMAT:
            raise StoreError(f"{path} has format {written}, this version reads up to {FORMAT}; upgrade hwnas")

    def close(self) -> None:
        """Close the file; further calls fail."""
        self._db.close()

    def get(self, name: str, default: Any = None) -> Any:
        """Return a fact about the study, or ``default`` where it was never put."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def put(self, name: str, value: Any) -> None:
        """Keep a JSON-ready fact about the study, in place of an earlier one of that name."""
        self.put_all({name: value})

    def put_all(self, facts: Mapping[str, Any]) -> None:
        """Keep facts that belong together, in one transaction."""
        with self._transaction():
            self._write(facts)

    def _write(self, facts: Mapping[str, Any]) -> None:
        for name, value in facts.items():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def add_trial(
        self,
        state: str,
        evaluation: Evaluation | None,
        optuna: Mapping[str, Any],
        duplicate_of: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> int:
        """Acknowledge a finished trial and return its number; trial, evaluation and facts are one transaction.

        Args:
            state: see :class:`TrialRecord`.
            evaluation: kept under its key; an earlier one with that key is left as it was.
            optuna: JSON-ready fields of Optuna's frozen trial.
            duplicate_of: number of the trial that was evaluated in its place.
            facts: facts about the study to put in the same transaction.
        """
        key = str(evaluation.key) if evaluation else None
        with self._transaction():
            if evaluation is not None:
                row = (key, evaluation.architecture.id, json.dumps(evaluation.to_dict()))
                self._db.execute("INSERT OR IGNORE INTO evaluations VALUES (?, ?, ?)", row)
            number = int(self._db.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM trials").fetchone()[0])
            trial = (number, state, key, duplicate_of, json.dumps(optuna))
            self._db.execute("INSERT INTO trials VALUES (?, ?, ?, ?, ?)", trial)
            self._write(facts or {})
        return number

    def find(self, key: EvaluationKey) -> tuple[int, Evaluation] | None:
        """Return the first trial with this key and its evaluation, or None."""
        query = (
            "SELECT t.number, e.data FROM trials t JOIN evaluations e ON t.evaluation = e.key "
            "WHERE e.key = ? ORDER BY t.number LIMIT 1"
        )
        row = self._db.execute(query, (str(key),)).fetchone()
        return (int(row[0]), Evaluation.from_dict(json.loads(row[1]))) if row else None

    def trials(self) -> Iterator[TrialRecord]:
        """Yield all trials in the order of their numbers."""
        query = (
            "SELECT t.number, t.state, t.duplicate_of, t.optuna, e.data FROM trials t "
            "LEFT JOIN evaluations e ON t.evaluation = e.key ORDER BY t.number"
        )
        for number, state, duplicate_of, optuna, data in self._db.execute(query).fetchall():
            evaluation = Evaluation.from_dict(json.loads(data)) if data else None
            yield TrialRecord(number, state, evaluation, duplicate_of, json.loads(optuna))

    def counts(self) -> dict[str, int]:
        """Return trial state to number of trials."""
        rows = self._db.execute("SELECT state, COUNT(*) FROM trials GROUP BY state ORDER BY state")
        return {state: int(count) for state, count in rows.fetchall()}


def open_study(folder: Path, study: str) -> StudyStore:
    """Open the store of an existing study.

    Args:
        folder: output root.
        study: name of the study, or the path of its folder.

    Raises:
        StoreError: there is none, with the names that exist.
    """
    for candidate in (folder / study, Path(study)):
        if (candidate / "store.sqlite").is_file():
            return StudyStore(candidate / "store.sqlite")
    known = sorted(path.parent.name for path in folder.glob("*/store.sqlite"))
    have = ", ".join(known) if known else "none"
    raise StoreError(f"no study '{study}' in {folder}; have {have}. Name one of these, or set folder=")


def check_integrity(path: Path) -> str:
    """Return ``ok``, or what SQLite finds wrong with the file."""
    with closing(sqlite3.connect(path)) as db:
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])

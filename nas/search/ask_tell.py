"""Optuna's study behind ask and tell: in memory while it runs, whole trials to a database when they are done.

A trial that is being asked for costs Optuna one database write per parameter; a finished one costs one. So the
running study lives in memory, and what the store has acknowledged is mirrored trial by trial. No trial can be left
running in the database, whenever the search is killed.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import ArgumentError

from nas.architecture import Choice
from nas.errors import ConfigError
from nas.objective import Objective
from nas.store import TrialRecord

# Optuna's relational storage keeps a system attribute in a column of 2,048 characters.
_LONGEST_ATTRIBUTE = 2045
_REST_S = 30.0
_OWNER = "hwnas.store"

Frozen = dict[str, Any]

logger = logging.getLogger(__name__)


def quiet_optuna() -> None:
    """Keep Optuna's own log lines and experimental warnings out of the terminal."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def freeze(trial: FrozenTrial) -> Frozen:
    """Return the JSON-ready fields from which :func:`thaw` rebuilds a finished trial."""
    return {
        "state": trial.state.name,
        "values": list(trial.values) if trial.values is not None else None,
        "params": dict(trial.params),
        "distributions": {name: distribution_to_json(dist) for name, dist in trial.distributions.items()},
        "user_attrs": dict(trial.user_attrs),
        "system_attrs": {
            name: value for name, value in trial.system_attrs.items() if len(json.dumps(value)) <= _LONGEST_ATTRIBUTE
        },
        "started": trial.datetime_start.isoformat() if trial.datetime_start else None,
        "completed": trial.datetime_complete.isoformat() if trial.datetime_complete else None,
    }


def thaw(frozen: Mapping[str, Any]) -> FrozenTrial:
    """Rebuild a finished trial; its number is given by the study that it is added to."""
    distributions = {name: json_to_distribution(text) for name, text in frozen["distributions"].items()}
    trial = optuna.trial.create_trial(
        state=TrialState[frozen["state"]],
        values=frozen["values"],
        params=dict(frozen["params"]),
        distributions=distributions,
        user_attrs=dict(frozen["user_attrs"]),
        system_attrs=dict(frozen["system_attrs"]),
    )
    trial.datetime_start = dt.datetime.fromisoformat(frozen["started"]) if frozen["started"] else None
    if frozen["completed"]:
        trial.datetime_complete = dt.datetime.fromisoformat(frozen["completed"])
    return trial


class AskTell:
    """The running study.

    Args:
        sampler: proposes the choices.
        objectives: axes, in the order of the values told.
        records: acknowledged trials of an earlier run, in order.
    """

    def __init__(self, sampler: BaseSampler, objectives: Sequence[Objective], records: Sequence[TrialRecord]) -> None:
        quiet_optuna()
        directions = [objective.direction for objective in objectives]
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._study.add_trials([thaw(record.optuna) for record in records])

    def ask(self, choices: Mapping[str, Choice] | None = None) -> Trial:
        """Start a trial, with these answers to the space's questions where given."""
        if choices is not None:
            self._study.enqueue_trial(dict(choices))
        return self._study.ask()

    def tell(
        self,
        trial: Trial,
        state: TrialState,
        values: Sequence[float] | None,
        constraints: Mapping[str, float],
        attributes: Mapping[str, Any],
    ) -> Frozen:
        """Finish a trial and return its JSON-ready fields.

        Args:
            trial: from :meth:`ask`.
            state: ``COMPLETE`` needs ``values``; ``PRUNED`` and ``FAIL`` take none.
            values: one per objective, in their units.
            constraints: name to violation, above 0 infeasible.
            attributes: user attributes, JSON-ready.
        """
        for name, violation in constraints.items():
            trial.set_constraint(name, violation)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        kept = list(values) if state is TrialState.COMPLETE and values is not None else None
        return freeze(self._study.tell(trial, kept, state=state))


def hide_password(url: str) -> str:
    """Return a URL for messages, its password left out."""
    return re.sub(r"://([^:/@]+):[^@]*@", r"://\1:***@", url)


class OptunaMirror:
    """Copies acknowledged trials to an Optuna storage, for Optuna's own tools and dashboards.

    What could not be written is written by a later :meth:`sync`; the store remains the truth.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:///runs/name/optuna.sqlite3`` or one of PostgreSQL.
        study: name of the study there.
        objectives: axes.
        owner: id of the store that is mirrored; a study of that name with another owner is left alone.
    """

    def __init__(self, url: str, study: str, objectives: Sequence[Objective], owner: str = "") -> None:
        self._owner = owner
        self._url, self._name, self._objectives = url, study, tuple(objectives)
        self._study: optuna.Study | None = None
        self._written = 0
        self._again_s = 0.0
        self.error = ""

    def check(self) -> None:
        """Refuse a storage that no later attempt can reach.

        Raises:
            ConfigError: its URL cannot be read, or its database driver is not installed.
        """
        try:
            self._open()
        except ConfigError:
            raise
        except (ImportError, ArgumentError) as error:
            raise ConfigError(
                f"storage={hide_password(self._url)} cannot be opened: {error} Expected an SQLAlchemy URL such as "
                "postgresql://USER@HOST/DATABASE with its driver installed (pip install 'hwnas[postgresql]')"
            ) from error
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def sync(self, records: Sequence[TrialRecord]) -> None:
        """Add the records that the storage lacks; never raises because the storage is down.

        After a failure nothing is tried for half a minute: a storage that hangs must not hang the search.
        """
        if time.monotonic() < self._again_s:
            return
        try:
            study = self._open()
            for record in records[self._written :]:
                study.add_trial(thaw(record.optuna))
                self._written += 1
            self.error = ""
        except Exception as error:
            if not self.error:
                logger.warning("optuna storage %s: %s; trials are kept in the store", self._name, error)
            self._study, self.error = None, f"{type(error).__name__}: {error}"
            self._again_s = time.monotonic() + _REST_S

    def _open(self) -> optuna.Study:
        if self._study is None:
            quiet_optuna()
            study = optuna.create_study(
                storage=self._url,
                study_name=self._name,
                directions=[objective.direction for objective in self._objectives],
                load_if_exists=True,
            )
            self._written = len(study.get_trials(deepcopy=False))
            owner = study.user_attrs.get(_OWNER)
            if owner != self._owner and (owner is not None or self._written):
                raise ConfigError(
                    f"the Optuna storage already holds study '{self._name}' of another search; name this one by study="
                )
            study.set_user_attr(_OWNER, self._owner)
            study.set_metric_names([objective.metric for objective in self._objectives])
            self._study = study
        return self._study

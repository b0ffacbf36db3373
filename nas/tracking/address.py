"""Where an MLflow store lies, and how a user opens it."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nas.errors import ConfigError

_SQLITE = "sqlite:///"
_DATABASES = ("postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Address:
    """A store of MLflow, all paths absolute.

    Args:
        uri: tracking URI.
        artifacts: URI under which artifacts lie, or None where the server decides.
    """

    uri: str
    artifacts: str | None

    @property
    def is_server(self) -> bool:
        """True for a tracking server, false for a database that this process writes itself."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The URI without user and password, for messages."""
        return hide_password(self.uri)

    def page(self, port: int, experiment: str, run: str | None = None) -> str:
        """Return the URL of a run's page, or of the experiment's table of runs."""
        root = self.uri.rstrip("/") if self.is_server else f"http://127.0.0.1:{port}"
        tail = f"/runs/{run}" if run else "/runs"
        # Without the workflow type MLflow 3 opens its pages for chats instead of the table of runs.
        return f"{root}/#/experiments/{experiment}{tail}?workflowType=machine_learning"

    def command(self, port: int) -> str | None:
        """Return the shell command that starts the user interface; None where a server runs already."""
        if self.is_server:
            return None
        arguments = ["--backend-store-uri", self.uri, "--port", str(port)]
        return shlex.join([_mlflow_program(), "ui", *arguments])


def resolve_address(uri: str, artifacts: str | None) -> Address:
    """Make every path absolute, so that a later command from another folder finds the same store.

    Args:
        uri: ``sqlite:///PATH`` (relative to the current folder unless PATH begins with a slash), another database,
            or the URL of a server.
        artifacts: folder or URI for artifacts; None puts them beside the SQLite file.

    Raises:
        ConfigError: MLflow cannot use such a store.
    """
    scheme = urlsplit(uri).scheme.split("+")[0]
    if uri.startswith(_SQLITE) and uri != _SQLITE:
        database = Path(uri.removeprefix(_SQLITE)).expanduser().resolve()
        folder = artifacts or str(database.parent / "artifacts")
        return Address(f"{_SQLITE}{database}", _artifact_uri(folder))
    if scheme in ("http", "https"):
        return Address(uri, _artifact_uri(artifacts) if artifacts else None)
    if scheme in _DATABASES:
        if artifacts is None:
            raise ConfigError(
                f"tracking.uri={hide_password(uri)} is a database without files; set tracking.artifacts too, "
                "such as tracking.artifacts=runs/mlflow/artifacts"
            )
        return Address(uri, _artifact_uri(artifacts))
    raise ConfigError(
        f"tracking.uri={hide_password(uri)} is no store that MLflow 3 takes; expected sqlite:///FOLDER/mlflow.db, "
        "http://HOST:PORT or postgresql://USER@HOST/BASE. Or turn tracking off by tracking=none."
    )


def hide_password(uri: str) -> str:
    """Return a URI without the user and password that it may hold."""
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1) if "@" in parts.netloc else uri


def _artifact_uri(place: str) -> str:
    return place if "://" in place else Path(place).expanduser().resolve().as_uri()


def _mlflow_program() -> str:
    """Return ``mlflow`` where the shell would find this environment's one, its path otherwise."""
    here = Path(sys.executable).parent / "mlflow"
    found = shutil.which("mlflow")
    if found and Path(found).resolve() == here.resolve():
        return "mlflow"
    near = Path.cwd()
    return str(here.relative_to(near)) if here.is_relative_to(near) else str(here)

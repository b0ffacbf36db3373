"""Where the YAML files lie, in a wheel and in a source checkout, and which names they offer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nas
from nas.errors import ConfigError

_MARK = "search.yaml"


def conf_dir() -> Path:
    """Return the folder of the YAML files, absolute: ``nas/conf`` in a wheel, ``conf`` beside ``nas`` in a checkout.

    Raises:
        ConfigError: neither is there, so the installation is broken.
    """
    package = Path(nas.__file__).resolve().parent
    candidates = (package / "conf", package.parent / "conf")
    for folder in candidates:
        if (folder / _MARK).is_file():
            return folder
    looked = " and ".join(str(folder) for folder in candidates)
    raise ConfigError(f"no {_MARK} in {looked}; the installation is incomplete. Install hwnas again.")


def own_config_dir(folder: str | Path) -> Path:
    """Return a user's own folder of configs, absolute.

    Raises:
        ConfigError: it is not a folder.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder} is not a folder; give one that holds GROUP/NAME.yaml files.")
    return path


def own_files(given: Iterable[str], own: Path | None) -> tuple[str, ...]:
    """Return the Python files that ``--plugin`` names, absolute; a bare name is looked for here and in ``own``.

    Raises:
        ConfigError: there is no such file.
    """
    found = []
    for name in given:
        file = name if name.endswith(".py") else f"{name}.py"
        places = [Path(file).expanduser(), *([own / file] if own else [])]
        path = next((place.resolve() for place in places if place.is_file()), None)
        if path is None:
            looked = " and ".join(str(place) for place in places)
            raise ConfigError(f"--plugin {name}: no {looked}; give a Python file of your own, such as my_space.py.")
        found.append(str(path))
    return tuple(found)


def group_names(own: Path | None = None) -> list[str]:
    """Return every group, sorted: the sub-folders that hold a YAML file, of ours and of the user's ``own`` folder."""
    roots = [conf_dir(), *([own] if own else [])]
    return sorted({folder.name for root in roots for folder in root.iterdir() if any(folder.glob("*.yaml"))})


def group_members(group: str, own: Path | None = None) -> list[str]:
    """Return the names that ``group`` offers, sorted, those of the user's ``own`` folder included."""
    roots = [conf_dir(), *([own] if own else [])]
    return sorted({path.stem for root in roots for path in (root / group).glob("*.yaml")})

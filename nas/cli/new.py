"""``nas new``: a first version of a part of one's own, with its config and its test, which passes unedited."""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from nas.cli import tables
from nas.errors import ConfigError

# Kind to the config group whose member it becomes.
GROUPS = {"space": "space", "proxy": "accuracy", "runtime": "runtime", "device": "device"}
_TRY = {
    "space": "space={name}",
    "proxy": "accuracy={name} objective=proxy_latency_size",
    "runtime": "runtime={name}",
    "device": "device={name} cost=predicted",
}


def run(config: dict[str, Any]) -> int:
    """Write class, config and test, and say how to use them; return 0.

    Args:
        config: as ``nas.config.compose.resolve`` returns it.

    Raises:
        ConfigError: the name cannot be a module's, or a file is there already.
    """
    kind, name, folder = config["kind"], config["name"], Path(config["to"])
    _check_name(name)
    files = {
        folder / f"{name}.py": "py",
        folder / GROUPS[kind] / f"{name}.yaml": "yaml",
        folder / f"test_{name}.py": "test",
    }
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists; nas new replaces nothing. Take another name, or another folder by to=.")
    words = {"name": name, "class_name": _class_name(name), "test_file": f"test_{name}.py"}
    for path, part in files.items():
        text = resources.files("nas.cli").joinpath("templates", f"{kind}.{part}.txt").read_text("utf-8")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(text).substitute(words), "utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}. Name another folder by to=.") from error
    _report(kind, name, folder, [str(path) for path in files], config["output"])
    return 0


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"name={name}: expected small letters, digits and '_' only, such as my_space.")
    if name in sys.builtin_module_names or find_spec(name) is not None:
        raise ConfigError(f"name={name}: a module of this name is installed and would hide yours; take another.")


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_") if word)


def _report(kind: str, name: str, folder: Path, files: list[str], output: str) -> None:
    where = f"--config-dir {folder} --plugin {folder / f'{name}.py'}"
    how = {"test": f"pytest {folder / f'test_{name}.py'}", "use": f"nas search {where} {_TRY[kind].format(name=name)}"}
    if output == "json":
        tables.print_json({"kind": kind, "name": name, "files": files, **how})
        return
    for file in files:
        print(f"wrote {file}")
    print(f"test it: {how['test']}\nuse it:  {how['use']}")

"""Makes objects of config nodes, out of our own packages and registered plug-ins alone.

``hydra.utils.instantiate`` calls whatever a config names (``numpy.load`` with its pickles, ``Path.unlink``); here the
dotted path must begin with an allowed package before anything is imported, and must end at a public class that was
defined in one. A file of a user's own joins them when the command line names it (``--plugin my_space.py``); no config
can do that.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Union

from nas.errors import ConfigError, closest

OUR_PACKAGES = ("nas", "search_spaces", "latency_models")
# Wiring, not parts: nothing in them is made to be named by a config.
NOT_CONSTRUCTIBLE = ("nas.cli", "nas.config", "nas.executor", "nas.testing", "nas.export", "nas.search", "nas.store")
# Functions that a config may call; everything else has to be a class.
FUNCTIONS = frozenset({"nas.measure.devices.make_device"})
PLUGIN_GROUP = "hwnas.plugins"

_TARGET = "_target_"
# Module name to the file of a user's own that the command line named.
_FILES: dict[str, Path] = {}


def allow_files(files: Iterable[str | Path]) -> None:
    """Let configs of this process, and of those that it spawns, name the classes of some Python files.

    The files' folders go to the end of the search path, so that a file's own neighbours can be imported too.

    Raises:
        ConfigError: no such file, or a name that is no identifier or one that a package of ours has.
    """
    for given in files:
        path = Path(given).expanduser().resolve()
        name = path.stem
        if path.suffix != ".py" or not path.is_file():
            raise ConfigError(f"--plugin {given} is no file; expected a Python file of your own, such as my_space.py.")
        if not name.isidentifier() or name.startswith("_") or name in OUR_PACKAGES:
            raise ConfigError(f"--plugin {given}: '{name}' cannot be a module's name here; rename the file.")
        _FILES[name] = path
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))


def check_target(node: Any, path: str, plugins: Sequence[str] = ()) -> Any:
    """Return the class that a node's ``_target_`` names, without making anything.

    Raises:
        ConfigError: the target is absent, not allowed, or does not exist.
    """
    if not isinstance(node, Mapping) or _TARGET not in node:
        raise ConfigError(f"{path} has no {_TARGET}, so there is nothing to make.")
    return _locate(node[_TARGET], tuple(plugins), _join(path, _TARGET))


def instantiate(node: Any, plugins: Sequence[str] = (), path: str = "", **extra: Any) -> Any:
    """Return the object that a node with ``_target_`` describes, nested nodes made first.

    Args:
        node: plain containers or an OmegaConf container; mappings without ``_target_`` stay dictionaries.
        plugins: further packages whose classes may be made, besides those that installed distributions register
            under the entry point group ``hwnas.plugins``.
        path: where the node stands in the config, for errors.
        extra: arguments that a config cannot hold, such as a task; over those of the node.

    Raises:
        ConfigError: the target is not allowed, does not exist, or its arguments do not fit.
    """
    if type(node).__module__.startswith("omegaconf."):  # a DictConfig is a Mapping too, but not plain
        node = _plain(node)
    if isinstance(node, Mapping) and _TARGET not in node and extra:
        raise ConfigError(f"{path or 'the node'} has no {_TARGET}, so there is nothing to make.")
    return _make(node, tuple(plugins), path, extra)


def _plain(node: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)


def _make(node: Any, plugins: tuple[str, ...], path: str, extra: Mapping[str, Any]) -> Any:
    if isinstance(node, (list, tuple)):
        return [_make(item, plugins, f"{path}[{index}]", {}) for index, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    for key in node:
        if str(key).startswith("_") and str(key).endswith("_") and key != _TARGET:
            raise ConfigError(f"{_join(path, key)}: of Hydra's special keys only {_TARGET} works here.")
    if _TARGET not in node:
        return {str(key): _make(value, plugins, _join(path, key), {}) for key, value in node.items()}
    maker = _locate(node[_TARGET], plugins, _join(path, _TARGET))
    given = {str(key): value for key, value in node.items() if key != _TARGET and key not in extra}
    arguments = {key: _make(value, plugins, _join(path, key), {}) for key, value in given.items()}
    return _call(maker, {**arguments, **extra}, frozenset(extra), path)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


@lru_cache(maxsize=1)
def _registered() -> tuple[str, ...]:
    """Packages that installed distributions register as plug-ins; reading the list imports none of them."""
    return tuple(point.module for point in entry_points(group=PLUGIN_GROUP))


def _is_in(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _is_allowed(name: str, plugins: Sequence[str]) -> bool:
    if _is_in(name, NOT_CONSTRUCTIBLE):
        return False
    return any(_is_in(name, packages) for packages in (OUR_PACKAGES, plugins, _registered(), tuple(_FILES)))


def _refusal(path: str, target: Any, why: str) -> ConfigError:
    return ConfigError(
        f"{path}={target} is refused: {why}. A config may name public classes of {', '.join(OUR_PACKAGES)} and of "
        f"plug-ins registered under the entry point group '{PLUGIN_GROUP}', or of a file of your own that the command "
        "line names by --plugin FILE.py."
    )


def _locate(target: Any, plugins: tuple[str, ...], path: str) -> Any:
    """Return the class that ``target`` names; nothing is imported unless its package is allowed."""
    if not isinstance(target, str):
        raise _refusal(path, target, "it is not a dotted path")
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise _refusal(path, target, "it is not a dotted path to a class")
    if any(part.startswith("_") for part in parts):
        raise _refusal(path, target, "it leads through a private name")
    if not _is_allowed(target, plugins):
        raise _refusal(path, target, "its package is not one whose code a config may run")
    module_name, name = ".".join(parts[:-1]), parts[-1]
    module = _import(module_name, target, path)
    if name not in vars(module):
        names = sorted(key for key, value in vars(module).items() if _is_constructible(value, plugins))
        guess = closest(name, names)
        hint = f" Did you mean '{module_name}.{guess}'?" if guess else ""
        raise ConfigError(f"{path}={target} does not exist; {module_name} has {', '.join(names) or 'no class'}.{hint}")
    found = vars(module)[name]
    if not _is_constructible(found, plugins):
        raise _refusal(path, target, "it is not a public class that was defined there")
    return found


def _import(module_name: str, target: str, path: str) -> types.ModuleType:
    try:
        module = importlib.import_module(module_name)
        mine = _FILES.get(module_name)
        if mine is not None and Path(module.__file__ or "").resolve() != mine:
            other = module.__file__ or module_name
            raise ConfigError(f"{path}={target}: {mine} is hidden by {other}; rename your file.")
        return module
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(module_name.split(".", 1)[0]):
            raise ConfigError(f"{path}={target} needs the package {error.name}, which is not installed.") from error
        raise ConfigError(f"{path}={target} does not exist; there is no module {error.name}.") from error


def _is_constructible(found: Any, plugins: Sequence[str]) -> bool:
    """Tell whether it is a public class, or a function listed in FUNCTIONS, that an allowed package defined."""
    home, name = getattr(found, "__module__", None), getattr(found, "__qualname__", "")
    if not isinstance(home, str) or not _is_allowed(home, plugins) or name.startswith("_"):
        return False
    if isinstance(found, type):
        return not issubclass(found, BaseException) and not getattr(found, "_is_protocol", False)
    return inspect.isfunction(found) and f"{home}.{name}" in FUNCTIONS


def _call(maker: Any, arguments: Mapping[str, Any], extra: frozenset[str], path: str) -> Any:
    where, name = path or maker.__name__, f"{maker.__module__}.{maker.__qualname__}"
    parameters = inspect.signature(maker).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    known = [key for key, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    for key in arguments:
        if key not in known and not free:
            guess = closest(key, known)
            hint = f" Did you mean '{guess}'?" if guess else ""
            raise ConfigError(f"{where}: {name} has no argument '{key}'; has {', '.join(known) or 'none'}.{hint}")
    absent = [
        key
        for key in known
        if key not in arguments
        and parameters[key].default is inspect.Parameter.empty
        and parameters[key].kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    if absent:
        raise ConfigError(f"{where}: {name} needs {', '.join(absent)}; give {_join(path, absent[0])}=VALUE.")
    _check_types(maker, {key: value for key, value in arguments.items() if key not in extra}, path)
    try:
        return maker(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {name} refuses its arguments: {error}.") from error


def _check_types(maker: Any, arguments: Mapping[str, Any], path: str) -> None:
    try:
        hints = typing.get_type_hints(maker if inspect.isfunction(maker) else maker.__init__)
    except (NameError, TypeError):  # names imported for type checkers only
        return
    for key, value in arguments.items():
        if key in hints and not fits(value, hints[key]):
            wanted = inspect.formatannotation(hints[key]).replace("collections.abc.", "").replace("typing.", "")
            raise ConfigError(f"{_join(path, key)}={value!r}: expected {wanted}.")


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a plain value may stand where ``hint`` is annotated; unknown hints accept everything.

    An int fits a float, a bool fits neither, and a list fits any sequence or tuple.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if hint in (bool, str, types.NoneType):
        return isinstance(value, hint)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    container = origin or hint
    if isinstance(container, type) and container is not object and issubclass(container, Mapping):
        return isinstance(value, Mapping)
    if isinstance(container, type) and container is not str and issubclass(container, Sequence):
        item = inner[0] if inner else Any
        uniform = container is not tuple or (len(inner) == 2 and inner[1] is Ellipsis)
        return isinstance(value, (list, tuple)) and (not uniform or all(fits(one, item) for one in value))
    return True

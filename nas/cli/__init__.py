"""The command ``nas``: takes the words apart, composes the config, runs the verb, and reports errors in few lines.

Nothing heavy is imported here: Hydra comes with a verb, torch, optuna and mlflow with the verb that needs them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import nas
from nas.cli.arguments import TOGETHER, Command, parse
from nas.errors import ConfigError, NasError

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for a wrong setting, 1 for other errors, 130 for Ctrl-C.

    Args:
        argv: words without the program's name; None takes those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        command = parse(words)
        if command.version:
            print(f"nas {nas.__version__}")
            return 0
        if command.help:
            return _help(command)
        return _run(command)
    except NasError as error:
        return _report(error)
    except KeyboardInterrupt:
        print("\nnas: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # such as nas devices | head
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _help(command: Command) -> int:
    from nas.cli import help as texts
    from nas.config.paths import own_config_dir

    own = own_config_dir(command.config_dir) if command.config_dir else None
    print(texts.of_verb(command.verb, own) if command.verb else texts.overview(own))
    return 0


def _run(command: Command) -> int:
    from nas.config import compose
    from nas.config.instantiate import allow_files
    from nas.config.paths import own_config_dir, own_files

    own = own_config_dir(command.config_dir) if command.config_dir else None
    plugins = own_files(command.plugins, own)
    allow_files(plugins)
    request = compose.Request(command.verb, command.overrides, own, plugins=plugins)
    if command.cfg:
        print(compose.show(request, command.package, command.resolve), end="")
        return 0
    if command.verb in TOGETHER and not command.multirun:
        parts = [compose.resolve(job) for job in compose.expand(request)]
        return _run_verb(command.verb, {**parts[0], "parts": parts})
    if not command.multirun:
        return _run_verb(command.verb, compose.resolve(request))
    requests = compose.expand(request)
    # All are composed before the first runs: a wrong word in the last must not show after hours.
    jobs = [(compose.resolve(job), job.overrides) for job in requests]
    worst = 0
    for number, (config, overrides) in enumerate(jobs, 1):
        print(f"nas {command.verb} {number}/{len(jobs)}: {' '.join(overrides)}", file=sys.stderr)
        try:
            worst = max(worst, _run_verb(command.verb, config))
        except NasError as error:
            worst = max(worst, _report(error))
        if worst == _INTERRUPTED:
            break
    compare = getattr(importlib.import_module(f"nas.cli.{command.verb}"), "compare", None)
    if compare is not None:
        compare([config for config, _ in jobs])
    return worst


def _run_verb(verb: str, config: dict[str, Any]) -> int:
    try:
        return int(importlib.import_module(f"nas.cli.{verb.replace('-', '_')}").run(config))
    except KeyboardInterrupt:
        how = _how_to_resume(config) if verb == "search" else ""
        print(f"\nnas {verb}: interrupted.{how}", file=sys.stderr)
        return _INTERRUPTED


def _how_to_resume(config: Mapping[str, Any]) -> str:
    study = config.get("resume") or config.get("study")
    folder = "" if config.get("folder") == "runs" else f" folder={config.get('folder')}"
    return f" What was evaluated is kept; go on by the same command again, or by: nas search resume={study}{folder}"


def _report(error: NasError) -> int:
    if os.environ.get("NAS_TRACEBACK") == "1":
        import traceback

        traceback.print_exception(error)
    else:
        print(f"nas: {error}", file=sys.stderr)
    return 2 if isinstance(error, ConfigError) else 1

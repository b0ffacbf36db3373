"""A command of the user's own that prints the joules counted so far, such as a reader of a plug's or a bench meter."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence

from nas.measure.energy.source import absent

_TIMEOUT_S = 10.0


class Command:
    """Runs a program at each reading; the last word it prints is a number of joules that rises.

    The windows of runs are half a second: a command that takes long, or prints whole joules, adds that to the spread.

    Args:
        command: program and arguments; no shell sees them.
    """

    name = "command"

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def read_mj(self) -> float:
        """Return the number as millijoules.

        Raises:
            MeasurementError: the command failed, was too slow, or printed no number.
        """
        shown = " ".join(self._command)
        try:
            done = subprocess.run(
                self._command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise absent(self.name, f"'{shown}' did not run ({type(error).__name__}: {error})") from error
        if done.returncode != 0:
            said = done.stderr.strip()[-300:]
            raise absent(self.name, f"'{shown}' ended with status {done.returncode}: {said or 'it said nothing'}")
        try:
            joules = float(done.stdout.split()[-1])
        except (IndexError, ValueError) as error:
            raise absent(self.name, f"'{shown}' printed {done.stdout[-100:]!r}, no number of joules") from error
        if not math.isfinite(joules):
            raise absent(self.name, f"'{shown}' printed {joules}")
        return joules * 1000


def open_command(command: Sequence[str]) -> Command:
    """Return the source.

    Raises:
        MeasurementError: no command was given.
    """
    if not command:
        raise absent("command", "no command was given; name it by device.energy_command=[PROGRAM,ARGUMENT,...]")
    return Command(command)

"""The terminal: handed over to a program of the user's choice, and taken back when it has ended."""

import signal
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path


def hand_over(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> int:
    """Run it in the foreground; its exit status. Ctrl-C is the program's meanwhile, and its terminal modes end with it.

    Raises `OSError` when it cannot be started.
    """
    modes = termios.tcgetattr(sys.stdin)
    # Not SIG_IGN, which the program would inherit.
    before = {number: signal.signal(number, _pass_over) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        return subprocess.call(argv, cwd=cwd, env=env)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes)
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_over(_number: int, _frame: object) -> None:
    """The program has got it too."""

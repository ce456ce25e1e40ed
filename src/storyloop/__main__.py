"""The `storyloop` command, also as `python -m storyloop`."""

import os
import sys

from storyloop import __version__


def main() -> None:
    """The program. Its version is told without importing what reads a command line: that is most of the time."""
    if sys.argv[1:] == ["--version"]:
        try:
            os.write(1, f"storyloop, version {__version__}\n".encode())
        except OSError:  # whoever asked has left
            sys.exit(1)
        return
    from storyloop.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()

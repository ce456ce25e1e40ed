"""`python -m storyloop` is the `storyloop` command."""

from storyloop.cli.main import main

main()

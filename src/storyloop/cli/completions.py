"""`completions`: the script that teaches a shell our verbs and flags."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completions(shell: str) -> int:
    """Print the completion script for SHELL.

    \b
    bash:  storyloop completions bash >> ~/.bashrc
    zsh:   storyloop completions zsh >> ~/.zshrc
    fish:  storyloop completions fish > ~/.config/fish/completions/storyloop.fish
    """
    from storyloop.cli.main import storyloop

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(storyloop, {}, "storyloop", "_STORYLOOP_COMPLETE").source())
    return 0

"""`config`: what is set, where each value comes from, and how to set one."""

import os
from pathlib import Path

import click

from storyloop.cli.here import here, identity_of
from storyloop.cli.json_text import json_line
from storyloop.config import Source, load, rows, set_setting
from storyloop.world.environment import allowed_environment
from storyloop.world.survey import discover


@click.group()
def config() -> None:
    """Show or change the configuration."""


@config.command()
@click.argument("key", required=False)
@click.option("--env", is_flag=True, help="The environment that agents and checks get (values are not shown).")
@click.option("--json", "as_json", is_flag=True, help="The settings as JSON.")
def show(key: str | None, env: bool, as_json: bool) -> int:
    """Show every setting, or those under KEY, each with where it comes from."""
    if env:
        names = list(allowed_environment(os.environ, extra={}))
        click.echo(json_line(names) if as_json else "\n".join(names))
        return 0
    loaded = load(root=_root(), environ=os.environ)
    found = rows(loaded, key)
    if as_json:
        shown = [{"key": row.key, "value": row.value, "origin": str(row.origin)} for row in found]
        click.echo(json_line(shown))
        return 0
    width = max((len(row.key) for row in found), default=0)
    for row in found:
        click.echo(f"{row.key:<{width}}  {row.text}  ({row.origin})")
    for warning in loaded.warnings:
        click.echo(f"note: {warning}", err=True)
    return 0


@config.command()
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="The value as JSON.")
def get(key: str, as_json: bool) -> int:
    """Print the value of KEY."""
    found = rows(load(root=_root(), environ=os.environ), key)
    for row in found:
        alone = row.key == key
        text = json_line(row.value).decode() if as_json else row.text
        click.echo(text if alone else f"{row.key} = {text}")
    return 0


@config.command(name="set")
@click.argument("key")
@click.argument("value")
@click.option("--user", is_flag=True, help="In your own file, for every repository.")
def set_(key: str, value: str, user: bool) -> int:
    """Set KEY to VALUE in storyloop.toml; comments in the file stay.

    \b
    storyloop config set limits.continuations 2
    storyloop config set checks.test "pytest -q"
    """
    target = Source.USER if user else Source.REPOSITORY
    written = set_setting(key, value, target=target, root=_root(), environ=os.environ)
    for warning in written.warnings:
        click.echo(f"note: {warning}", err=True)
    click.echo(f"{key} is set in {written.path}")
    return 0


def _root() -> Path | None:
    """The checkout the user stands in; settings of one's own can be looked at from anywhere."""
    directory = here()
    return Path(discover(directory, os.environ).checkout) if identity_of(directory) is not None else None

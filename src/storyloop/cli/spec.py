"""`spec`: look at a spec file before it runs, get one back out of a run, or talk a new one with an agent."""

from pathlib import Path

import click

from storyloop.cli.here import here, identity_of
from storyloop.cli.spec_new import new
from storyloop.core.spec_file import dump_spec
from storyloop.core.spec_text import dump_markdown
from storyloop.preparing import read_spec
from storyloop.views.header import spec_lines
from storyloop.wiring import make_archive
from storyloop.world.text import readable


@click.group()
def spec() -> None:
    """Check a spec file, export the one of a run, or talk a new one with an agent."""


spec.add_command(new)


@spec.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The spec as JSON, as a run would keep it.")
def check(file: Path, as_json: bool) -> int:
    """Say everything that is wrong with FILE, or how its stories would be taken."""
    found, _ = read_spec(file)
    click.echo(dump_spec(found) if as_json else readable("\n".join(spec_lines(found))))
    return 0


@spec.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--format", "form", type=click.Choice(["json", "md"]), default="json", show_default=True)
def export(run_id: str | None, form: str) -> int:
    """Print the spec of a run, with what has passed marked as passed."""
    archive = make_archive()
    row = archive.find(run_id, identity_of(here()))
    found = archive.spec_of(row.run_id)
    click.echo(dump_spec(found) if form == "json" else dump_markdown(found))
    return 0

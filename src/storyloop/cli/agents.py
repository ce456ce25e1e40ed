"""`agents`: the agents that Storyloop knows by name, which of them are here, and what each can do."""

import os

import click

from storyloop.agents.installed import Installed, look
from storyloop.agents.profile import Can, Profile
from storyloop.agents.profiles import PROFILES
from storyloop.cli.json_text import json_line

_COLUMNS = (("SESSION", Can.RESUME), ("USAGE", Can.USAGE), ("COST", Can.COST), ("ACP", Can.ACP))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
def agents(as_json: bool) -> int:
    """Show the agents that are known by name: version, login, and what each can do."""
    found = look(os.environ)
    if as_json:
        click.echo(json_line([_row(profile, found[profile.name]) for profile in PROFILES.values()]))
        return 0
    here = [(profile, row) for profile in PROFILES.values() if (row := found[profile.name]) is not None]
    if here:
        heads = "  ".join(head for head, _ in _COLUMNS)
        click.echo(f"{'AGENT':<13} {'VERSION':<22} {'LOGIN':<6} {heads}")
        for profile, row in here:
            click.echo(_line(profile, row))
    absent = [profile for profile in PROFILES.values() if found[profile.name] is None]
    if here and absent:
        click.echo("")
    for profile in absent:
        click.echo(f"{profile.name:<13} not here: {profile.install}")
    unverified = ", ".join(profile.name for profile in PROFILES.values() if not profile.verified)
    adapters = ", ".join(
        profile.acp[0] for profile in PROFILES.values() if profile.acp[:1] not in ((), (profile.program,))
    )
    click.echo(
        f"\nLOGIN ?: cannot be told from outside. COST -: reckoned from the tokens, where those are told.\n"
        f"ACP by programs of their own: {adapters}.\n"
        f"Never tried by us, by their vendors' documents only: {unverified}.",
        err=True,
    )
    return 0


def _seen(profile: Profile, row: Installed) -> bool:
    return row.version in profile.versions


def _line(profile: Profile, row: Installed) -> str:
    version = row.version or "unknown"
    if row.version and not _seen(profile, row):
        version += " (unverified)" if not profile.verified else " (new to us)"
    login = "yes" if row.is_logged_in else "?"
    can = "  ".join(f"{'yes' if what in profile.can else '-':<{len(head)}}" for head, what in _COLUMNS)
    return f"{profile.name:<13} {version:<22} {login:<6} {can}".rstrip()


def _row(profile: Profile, row: Installed | None) -> dict[str, object]:
    return {
        "name": profile.name,
        "title": profile.title,
        "verified": profile.verified,
        "installed": row is not None,
        "path": row and row.path,
        "version": row and row.version,
        "version_seen": row is not None and _seen(profile, row),
        "versions_seen": profile.versions,
        "logged_in": row and row.is_logged_in,
        "can": sorted(profile.can),
        "acp": profile.acp,
        "install": profile.install,
    }

"""The command's group: verbs are imported when they are called, so that `--version` and `status` cost little."""

import os
import sys
from importlib import import_module

import click

from storyloop import __version__
from storyloop.core.errors import StoryloopError, UserError
from storyloop.home import state_directory

# verb -> module; the function in it has the verb's name. The order is that of the help text.
_VERBS = {
    "demo": "demo",
    "init": "init",
    "spec": "spec",
    "run": "run",
    "resume": "run",
    "stop": "requests",
    "retry": "requests",
    "skip": "requests",
    "answer": "requests",
    "approve": "requests",
    "reject": "requests",
    "deliver": "deliver",
    "pr-review": "review",
    "status": "status",
    "show": "show",
    "logs": "logs",
    "improve": "improve",
    "fork": "run",
    "undo": "undo",
    "clean": "clean",
    "agents": "agents",
    "config": "config",
    "doctor": "doctor",
    "completions": "completions",
}


# What the help says of each, without importing any.
_SHORT = {
    "demo": "Watch a complete run on a throw-away repository.",
    "init": "Find this project's checks, write storyloop.toml.",
    "spec": "Check a spec file, export a run's, or talk a new one.",
    "run": "Take a spec's stories through an agent and prove them.",
    "resume": "Go on with a run exactly where it stopped.",
    "stop": "Stop a run that another process drives.",
    "retry": "Give a blocked or skipped story another try.",
    "skip": "Leave a story out.",
    "answer": "Answer the question of a story's agent.",
    "approve": "Let what waits under --step be committed.",
    "reject": "Send what waits under --step back to its agent.",
    "deliver": "Push a run's branch and open its pull request.",
    "pr-review": "Follow up what was said of a pull request.",
    "status": "List the runs of this repository.",
    "show": "One run: what happened, what is proven by what, the cost.",
    "logs": "A run's history, a line for each fact; -f follows.",
    "improve": "Go on with a branch, with what was learnt on it.",
    "fork": "Begin a new run from any point of an old one.",
    "undo": "Walk back what a run did in the repository.",
    "clean": "Remove what finished or stale runs left.",
    "agents": "The agents that are here, and what each can do.",
    "config": "Show or change settings.",
    "doctor": "Check this machine; drive the agents it has, offline.",
    "completions": "Print a shell's completion script.",
}


class LazyGroup(click.Group):
    """A group that knows its verbs by name only."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl(list(_SHORT.items()))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        module = import_module(f"storyloop.cli.{_VERBS[cmd_name]}")
        return getattr(module, cmd_name.replace("-", "_"))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _VERBS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], _VERBS, n=1)
            ctx.fail(f"There is no verb {args[0]}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `storyloop demo`, then `storyloop init` in your repository.",
)
@click.version_option(__version__, prog_name="storyloop")
def storyloop() -> None:
    """Drive the coding agents you have until every acceptance criterion of a spec is proven.

    Storyloop takes user stories one after the other through an agent, proves each with commands that it runs itself,
    and commits what is proven on a branch of its own. Stop it any time; `storyloop resume` goes on.
    """


def main() -> None:
    """The program. A user's mistake is one sentence and its cure, never a traceback."""
    try:
        sys.exit(storyloop.main(standalone_mode=False, prog_name="storyloop"))
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except StoryloopError as error:
        click.echo(f"storyloop: {error}", err=True)
        sys.exit(exit_code_of(error))
    except BrokenPipeError:
        # Whoever read our output has left; nothing more is to be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last edge: a person gets a sentence, the traceback goes to a file
        click.echo(f"storyloop: an error of ours: {error!r}. {_kept_traceback()}", err=True)
        sys.exit(1)


def exit_code_of(error: StoryloopError) -> int:
    """What an error that reached the top ends the program with."""
    if isinstance(error, UserError):
        return int(getattr(error, "exit_code", 2))
    return 1


def _kept_traceback() -> str:
    import traceback

    file = state_directory(os.environ) / "errors" / f"{os.getpid()}.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(traceback.format_exc())
    except OSError as error:
        return f"What led to it could not be kept ({error.strerror}):\n{traceback.format_exc()}"
    return f"What led to it is in {file}; please report it."

"""What the documents say of the program is so."""

import itertools
import re
from pathlib import Path

import click
import pytest

from storyloop.cli.main import storyloop
from storyloop.core.spec import Spec
from storyloop.core.spec_file import parse_spec

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TEXTS = sorted(
    path
    for place in ("src", "tests", "docs", "benchmarks")
    for path in (ROOT / place).rglob("*")
    if path.suffix in {".py", ".md", ".toml", ".j2", ".xsd", ".txt", ".json"} and path != Path(__file__)
) + sorted(path for path in ROOT.iterdir() if path.suffix in {".md", ".toml"} or path.name == "Makefile")


def verbs(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """Every verb by its full name, those below `spec` and `config` too."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found |= (
            verbs(command, f"{before}{name} ") if isinstance(command, click.Group) else {f"{before}{name}": command}
        )
    return found


VERBS = verbs(storyloop)


def options(*of: click.Command) -> set[str]:
    """The options, short where there is no better name for them in a table."""
    found = [param for command in of for param in command.params if isinstance(param, click.Option)]
    short = {"--quiet": "-q", "--verbose": "-v", "--follow": "-f"}
    return {short.get(name, name) for param in found for name in param.opts if name.startswith("--")}


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The table that begins with this cell: the rest of each row by its first cell."""
    lines = (ROOT / page).read_text().split(f"| {heading} |", 1)[1].splitlines()[2:]
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    cells = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table)
    return {first: rest for first, *rest in cells}


def named_verbs(cell: str) -> list[str]:
    """`config show [KEY]`, `get KEY` names `config show` and `config get`."""
    names: list[str] = []
    for quoted in re.findall(r"`([^`]+)`", cell):
        words = [word for word in quoted.split() if re.fullmatch(r"[a-z-]+", word)]
        name = " ".join(words)
        if name not in VERBS and names:
            name = f"{names[-1].split()[0]} {name}"
        names.append(name)
    return names


def test_the_command_lines_page_has_every_verb_with_every_option() -> None:
    """Neither more nor less."""
    table = rows("docs/cli.md", "verb")
    named: list[str] = []
    for cell, rest in table.items():
        here = named_verbs(cell)
        named += here
        told = set(re.findall(r"`(--?[a-z-]+)", rest[-1]))
        assert told == options(*(VERBS[name] for name in here)), cell
    assert sorted(named) == sorted(VERBS)


def test_the_readme_names_every_verb_and_no_other() -> None:
    """In its table, and wherever it shows a line to type."""
    named = [name for cell in rows("README.md", "verb") for name in named_verbs(re.sub(r" -f\b", "", cell))]
    assert sorted(named) == sorted(VERBS)
    for page in PAGES:
        for line in re.findall(r"(?:^    |`)storyloop ([a-z][^`\n#]*)", page.read_text(), re.MULTILINE):
            first, second = (*line.split(), "")[:2]
            assert first in VERBS or f"{first} {second}" in VERBS or first in {"spec", "config"}, f"{page.name}: {line}"


@pytest.mark.parametrize("page", ["README.md", "docs/spec.md"])
def test_the_examples_of_specs_are_specs(page: str) -> None:
    """Each of them reads without a complaint."""
    examples = re.findall(r"```(markdown|json)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert examples != []
    for kind, text in examples:
        assert isinstance(parse_spec(text.encode(), name=f"spec.{'md' if kind == 'markdown' else 'json'}"), Spec)


def test_every_verb_and_every_option_explains_itself() -> None:
    """A sentence each."""
    assert [name for name, command in VERBS.items() if not command.help] == []
    silent = [
        f"{name} {param.opts[0]}"
        for name, command in VERBS.items()
        for param in command.params
        if isinstance(param, click.Option) and not param.help and not isinstance(param.type, click.Choice)
    ]
    assert silent == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    """To a file, and where it names a heading, to one that is there."""
    for target, heading in re.findall(r"\]\((?!https?:|mailto:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), f"{page.name} links to {target}"
        if heading:
            headings = re.findall(r"^#+ +(.*)$", found.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_the_exit_codes_are_those_of_the_program() -> None:
    """The table names each once."""
    assert list(rows("docs/cli.md", "code")) == ["0", "1", "2", "3", "4", "5", "130, 143"]


def test_no_file_names_a_machine_or_how_the_work_was_organised() -> None:
    """The project stands for itself."""
    told = re.compile(r"(?<![\w.<>}\"'/])/(?:work|root)(?=[/\s\"'`]|$)|\bissue #?\d|\B#\d+\b(?![\w;-])", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in TEXTS
        if (match := told.search(path.read_text(errors="replace")))
    ]
    assert found == []

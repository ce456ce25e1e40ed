"""Tampering: what in a story's change bends its own proof, found in the lines that came and went.

A suspicion is no verdict: it is for the reviewer and the report, or, where the user says so, the agent has to put it
back. What only moved is no change: a line (or the name of a test) that went here and came there counts as neither. A
file that the story's own text names is not suspected for being changed: that was asked for. Everything else is a
table: `_GUARDS` says which files decide what a check shows, `languages` how tests look.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from storyloop.core.facts import ChangeKind, Suspicion, SuspicionKind
from storyloop.core.languages import OTHER, Language, language_of_tests, language_with_tests, names_of_tests

_MOST_TOLD = 20
_MOST_NAMED = 5
_LONGEST = 120  # characters of a line that is quoted

_NEVER = r"(?!)"
_COMMENT = r"#(?!\[)|//(?!go:build)|\*|--"


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file: the lines that only the new one has, and those that only the old one had."""

    path: str
    kind: ChangeKind
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Proofs(msgspec.Struct, frozen=True, kw_only=True):
    """What is run to prove a story, and what its text asks for."""

    checks: tuple[str, ...] = ()
    verify: tuple[str, ...] = ()
    asked: str = ""


class _Guard(NamedTuple):
    """Files that decide what a check shows, and the lines in them that do; empty: every line."""

    kind: SuspicionKind
    files: str
    says: str
    came: str = ""
    went: str = ""


_RUNNER = "how tests are run"
_RULES = "what a check looks for"
_CONFIG, _CHECK, _CI = SuspicionKind.TEST_CONFIG_CHANGED, SuspicionKind.CHECK_CHANGED, SuspicionKind.CI_CHANGED
_KEYS = (
    r"^\[tool[.:](?:pytest|coverage)|^(?:addopts|testpaths|python_(?:files|classes|functions)|norecursedirs|xfail_strict"
    r"|filterwarnings|fail_under|omit|exclude_(?:lines|also))\s*="
)
_HOOKS = r"\bcollect_ignore\w*|\bdef pytest_(?!addoption)\w+|\b_exit\(|\bexitstatus\b"
_IN_PACKAGE = (
    r'^"(?:jest|vitest|mocha|nyc|c8|ava)"\s*:\s*\{'
    r'|"(?:test(?:Match|Regex|PathIgnorePatterns)|coverageThreshold|passWithNoTests)"'
)
_SKIPPING = r"skipTests|maven\.test\.skip|ignoreFailures|testFailureIgnore"
_HARMLESS = (
    r"/?(?:\*\*/)?(?:__pycache__|\*\.py\[?\w*\]?|\.?venv|env|node_modules|dist|build|out|target|bin|obj|htmlcov|\.?coverage"
    r"|\.env(?:\.[\w.*]+)?|\.DS_Store|\.idea|\.vscode|\.\w+_cache|\.cache|\.tox|\.next|tmp|logs?"
    r"|\*\.(?:log|o|class|tmp|swp|egg-info))/?$"
)
_GUARDS = (
    _Guard(_CHECK, r"^storyloop\.toml$|^storyloop-prompts/", "what Storyloop runs and asks"),
    _Guard(
        _CI,
        r"(?:^|/)\.(?:github|gitea|forgejo)/(?:workflows|actions)/|^\.(?:circleci|buildkite|woodpecker)/"
        r"|(?:^|/)(?:\.gitlab-ci[^/]*\.ya?ml|\.?azure-pipelines[^/]*\.ya?ml|bitbucket-pipelines\.yml|\.?appveyor\.yml"
        r"|\.travis\.yml|\.drone\.yml|\.woodpecker\.ya?ml|\.cirrus\.yml|Jenkinsfile[^/]*)$",
        "what the CI runs",
    ),
    _Guard(
        _CONFIG,
        r"(?:^|/)(?:\.?pytest\.(?:ini|toml)|tox\.ini|noxfile\.py|\.coveragerc|\.?codecov\.ya?ml|phpunit\.xml[^/]*|\.rspec"
        r"|(?:jest|vitest|karma|playwright|cypress|ava)\.(?:config|workspace|conf|setup)\.\w+|\.(?:mocha|nyc|c8)rc[^/]*)$",
        _RUNNER,
    ),
    _Guard(_CONFIG, r"(?:^|/)(?:pyproject\.toml|setup\.cfg)$", _RUNNER, _KEYS, _KEYS),
    _Guard(_CONFIG, r"(?:^|/)conftest\.py$", _RUNNER, _HOOKS, _HOOKS),
    _Guard(_CONFIG, r"(?:^|/)package\.json$", _RUNNER, _IN_PACKAGE, _IN_PACKAGE),
    _Guard(_CONFIG, r"(?:^|/)Cargo\.toml$", _RUNNER, r"^(?:test|doctest|autotests|harness)\s*=\s*false", _NEVER),
    _Guard(_CONFIG, r"(?:^|/)(?:pom\.xml|build\.gradle(?:\.kts)?)$", _RUNNER, _SKIPPING, _NEVER),
    _Guard(
        _CHECK,
        r"(?:^|/)(?:\.flake8|\.?ruff\.toml|\.?mypy\.ini|\.pylintrc|pyrightconfig\.json|biome\.json|\.golangci\.\w+"
        r"|clippy\.toml|\.eslint(?:rc[^/]*|ignore)|eslint\.config\.\w+|\.pre-commit-config\.yaml)$",
        _RULES,
    ),
    _Guard(
        SuspicionKind.FILES_IGNORED, r"(?:^|/)\.gitignore$", "what git ignores", rf"^(?![#!])(?!{_HARMLESS})\S", _NEVER
    ),
)
_SWALLOWED = (
    r"\|\|\s*(?:true|:|exit 0)(?![\w/])|^exit 0\b|\b(?:continue-on-error|allow_failure):\s*true|--passWithNoTests"
    r"|--exit-zero|\bset \+e\b"
)

# A file that is run: the first word of a command, or the first behind a program that runs scripts.
_SCRIPT = re.compile(
    r"(?:^|[;&|(])\s*(?:(?:\w+=\S*|env|exec|source|\.|uv|run|sh|bash|dash|zsh|python[\d.]*|node|ruby|perl|php|tsx)\s+"
    r"(?:-\S+\s+)*)*(?:\./([\w.+-]+(?:/[\w.+-]+)*)|([\w.+-]+(?:/[\w.+-]+)+|[\w+-]+\.[a-z]\w*))"
)
_PROVES = r"check|verif|test|lint|proof|prove|valid|accept|smoke"
# Programs that take their orders from a file: what of it they run is named behind them.
_RECIPES = {
    "make": r"(?:^|/)(?:GNU)?[Mm]akefile$|\.mk$",
    "just": r"(?:^|/)\.?[Jj]ustfile$",
    "task": r"(?:^|/)Taskfile\.ya?ml$",
    "rake": r"(?:^|/)Rakefile$",
}
_PACKAGE_RUNNERS = r"\b(?:npm|yarn|pnpm|bun)\b"


def suspicions(edits: Sequence[Edit], proofs: Proofs) -> tuple[Suspicion, ...]:
    """What in this change bends the proof, bounded."""
    guards = (*_GUARDS, *_guards_of(proofs))
    guarding = {edit.path: [g for g in guards if re.search(g.files, edit.path)] for edit in edits}
    found: list[Suspicion] = []
    for file in _looked_at([e for e in edits if guarding[e.path] or language_with_tests(e.path)]):
        found += _of_guards(file, guarding[file.edit.path], proofs.asked)
        if file.language is not None:
            found += _of_tests(file, file.language, proofs.asked)
    return tuple(dict.fromkeys(found))[:_MOST_TOLD]


def new_tests(edits: Sequence[Edit]) -> tuple[str, ...]:
    """The test files in which a test stands that stood nowhere before."""
    tests = [edit for edit in edits if language_of_tests(edit.path)]
    return tuple(file.edit.path for file in _looked_at(tests) if file.new or _is_new(file))


def _is_new(file: "_File") -> bool:
    return file.language is OTHER and file.edit.kind is ChangeKind.CREATED and bool(file.came)


# --- what moved, and what is new ------------------------------------------------------------------------------


class _File(NamedTuple):
    """A file without what only moved: the lines, and the names of tests, that came and went."""

    edit: Edit
    language: Language | None
    came: list[str]
    went: list[str]
    new: list[str]
    gone: list[str]


def _looked_at(edits: Sequence[Edit]) -> Iterator[_File]:
    languages = [language_with_tests(edit.path) for edit in edits]
    added, removed = [_bare(edit.added) for edit in edits], [_bare(edit.removed) for edit in edits]
    begun = [names_of_tests(of, e.added) if of else [] for of, e in zip(languages, edits, strict=True)]
    ended = [names_of_tests(of, e.removed) if of else [] for of, e in zip(languages, edits, strict=True)]
    rows = (edits, languages, _less(added, removed), _less(removed, added), _less(begun, ended), _less(ended, begun))
    yield from (_File(*row) for row in zip(*rows, strict=True))


def _less(rows: list[list[str]], others: list[list[str]]) -> list[list[str]]:
    """The rows without what the others have as well, each as often as it stands there."""
    left = Counter(word for row in others for word in row)
    kept: list[list[str]] = []
    for row in rows:
        kept.append([])
        for word in row:
            left[word] -= 1
            if left[word] < 0:
                kept[-1].append(word)
    return kept


# --- files that decide what a check shows ---------------------------------------------------------------------


def _guards_of(proofs: Proofs) -> Iterator[_Guard]:
    """The files that these very commands run, or take their orders from."""
    for command in (*proofs.checks, *proofs.verify):
        says = f"what `{_quoted(command)}` runs"
        for script in map("".join, _SCRIPT.findall(command)):
            if language_of_tests(script) not in (None, OTHER):
                continue  # it grows with each story: what is said of tests is said of it
            # What a criterion's command runs may be the work itself, so there its name has to tell.
            if command in proofs.checks or re.search(_PROVES, script):
                yield _Guard(_CHECK, rf"(?:^|/){re.escape(script)}$", says)
        words = set(re.findall(r"[\w:-]+", command))
        named = "|".join(map(re.escape, sorted(words | {"test"})))
        for program in words & _RECIPES.keys():
            yield _Guard(_CHECK, _RECIPES[program], says, rf"^(?:{named})\s*:(?!=)")
        if re.search(_PACKAGE_RUNNERS, command):
            key = rf'^"(?:pre|post)?(?:{named})"\s*:'
            yield _Guard(_CONFIG, r"(?:^|/)package\.json$", says, key, key)


def _of_guards(file: _File, guards: list[_Guard], asked: str) -> Iterator[Suspicion]:
    path, kind = file.edit.path, file.edit.kind
    for guard in guards if not _is_named(path, asked) else ():
        if guard.kind is _CHECK and kind is ChangeKind.CREATED:
            continue  # nothing was there that it could bend
        told = [f"-{line}" for line in _matching(guard.went, _bare(file.edit.removed))]
        told += [f"+{line}" for line in _matching(guard.came, _bare(file.edit.added))]
        if told:
            yield Suspicion(guard.kind, path, f"{guard.says} was {kind}: {_listed(told)}")
    swallowed = _matching(_SWALLOWED, file.came) if guards else []
    if swallowed:
        detail = f"a failure is no longer one: {_listed(swallowed)}"
        yield Suspicion(SuspicionKind.FAILURE_SWALLOWED, path, detail)


def _is_named(path: str, asked: str) -> bool:
    names = {path, path.rpartition("/")[2]}
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", asked) for name in names)


# --- tests ------------------------------------------------------------------------------------------------------


def _of_tests(file: _File, language: Language, asked: str) -> Iterator[Suspicion]:
    path = file.edit.path
    came = [line for line in file.came if not re.match(_COMMENT, line)]
    went = [line for line in file.went if not re.match(_COMMENT, line)]
    weaker = len(_matching(language.asserts, went)) - len(_matching(language.asserts, came))
    fewer = len(file.gone) - len(file.new)
    if file.edit.kind is ChangeKind.DELETED and _is_lost(file):
        if not _is_named(path, asked):
            with_them = f" with {_named(file.gone)}" if file.gone else ""
            yield Suspicion(SuspicionKind.TESTS_DELETED, path, f"a file of tests was deleted{with_them}")
    elif fewer > 0:
        detail = f"{fewer} test{'s' * (fewer > 1)} fewer than before: {_named(file.gone)} went"
        yield Suspicion(SuspicionKind.TESTS_REMOVED, path, detail)
    elif weaker > 0:
        example = _listed(_matching(language.asserts, went))
        detail = f"{weaker} assertion{'s' * (weaker > 1)} fewer than before: {example}"
        yield Suspicion(SuspicionKind.ASSERTIONS_WEAKENED, path, detail)
    if hollow := _matching(language.hollow, came):
        detail = f"what holds whatever the code does: {_listed(hollow)}"
        yield Suspicion(SuspicionKind.ASSERTIONS_WEAKENED, path, detail)
    if skipped := _matching(language.skips, came):
        yield Suspicion(SuspicionKind.TESTS_SKIPPED, path, f"tests are left out: {_listed(skipped)}")


def _is_lost(file: _File) -> bool:
    """Whether a file that is gone took its tests along; where they have no names, more than half of its lines."""
    return bool(file.gone) or (file.language is OTHER and 2 * len(file.went) >= len(_bare(file.edit.removed)))


# --- words ------------------------------------------------------------------------------------------------------


def _bare(lines: Iterable[str]) -> list[str]:
    return [bare for line in lines if (bare := line.strip())]


def _matching(pattern: str, lines: Iterable[str]) -> list[str]:
    return [line for line in lines if re.search(pattern, line)]


def _listed(lines: list[str]) -> str:
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return f"`{_quoted(lines[0])}`{more}"


def _named(names: list[str]) -> str:
    return ", ".join(_quoted(name) for name in names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def _quoted(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."

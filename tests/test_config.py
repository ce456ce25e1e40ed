"""Configuration: every layer, key and refusal, and the file that `config set` leaves behind."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from storyloop.config import (
    ConfigErrors,
    Flags,
    Loaded,
    Origin,
    Source,
    amended,
    load,
    rows,
    set_setting,
    user_file,
)
from storyloop.config import edit as config_edit
from storyloop.config.kinds import DURATION, duration_text, literal
from storyloop.config.settings import SETTINGS, default_of, value_in
from storyloop.core.policy import (
    AgentKind,
    AgentRef,
    AgentSpec,
    Budget,
    Command,
    Drain,
    Limits,
    OnExhausted,
    Policy,
    PullRequestPolicy,
    Require,
    ReviewPolicy,
    SandboxMode,
    SandboxPolicy,
    StoryBudget,
    Way,
    WorktreePolicy,
)

MINE = '[agents.mine]\nkind = "command"\ncommand = ["mine"]\n[agents.other]\nkind = "command"\ncommand = ["other"]\n'
WHOLE = """
[agents.claude]
model = "large"
[agents.mine]
kind = "command"
command = ["./my-agent", "--yes"]
env = { MY_SETTING = "1" }
pass_env = ["MY_KEY"]
[agents.played]
kind = "script"
script = "turns.toml"
[chains]
default = ["mine", "mine:small-model:7b", "played"]
[drains]
review = ["codex", "mine"]
[checks]
lint = "ruff check ."
test = { run = "pytest -q", timeout = "10m", env = { A = "" }, pass_env = ["B"] }
[worktree]
setup = ["npm ci"]
copy = [".env"]
pattern = "{repo}-wt-{branch}"
cleanup = false
[limits]
continuations = 4
fix_continuations = 5
format_retries = 0
same_agent_retries = 1
chain_cycles = 2
review_cycles = 0
loop_threshold = 2
calls_per_errand = 25
call_timeout = "90m"
idle_timeout = "20m"
check_timeout = 60
orphan_grace = "0s"
backoff = 0.5
max_wait = "1h30m"
on_exhausted = "commit"
[proof]
require = "criteria"
[budget]
calls = 200
tokens = 5_000_000
usd = 20
time = "8h"
[escalation]
attempts = ["plan-first", "agent:mine:big", "fresh"]
[budget.story]
calls = 9
usd = 4.5
[review]
enabled = false
[pull_request]
create = true
draft = true
[sandbox]
mode = "require"
writable = ["/var/cache"]
agent_network = false
checks_network = false
"""


class Place:
    """A user's home and a checkout, both empty."""

    def __init__(self, path: Path) -> None:
        self.root = path / "checkout"
        self.root.mkdir()
        self.environ = {"HOME": str(path / "home")}
        self.user = path / "home/.config/storyloop/config.toml"
        self.user.parent.mkdir(parents=True)
        self.repository = self.root / "storyloop.toml"

    def load(self, *, user: str | None = None, repository: str | None = None, flags: Flags = Flags()) -> Loaded:  # noqa: B008
        if user is not None:
            self.user.write_text(user)
        if repository is not None:
            self.repository.write_text(repository)
        return load(root=self.root, environ=self.environ, flags=flags)

    def refusal(self, *, user: str | None = None, repository: str | None = None, flags: Flags = Flags()) -> str:  # noqa: B008
        with pytest.raises(ConfigErrors) as caught:
            self.load(user=user, repository=repository, flags=flags)
        return str(caught.value)

    def set(self, key: str, text: str, *, target: Source = Source.REPOSITORY) -> str:
        set_setting(key, text, target=target, root=self.root, environ=self.environ)
        return self.repository.read_text() if target is Source.REPOSITORY else self.user.read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- what is read ------------------------------------------------------------------------------------


def test_a_file_with_every_setting_loads_completely(place: Place) -> None:
    """Nothing of it is lost, nothing is made up."""
    root = place.root
    assert place.load(repository=WHOLE).policy == Policy(
        agents={
            "claude": AgentSpec(kind=AgentKind.PROFILE, profile="claude", model="large"),
            "mine": AgentSpec(
                kind=AgentKind.COMMAND,
                command=(f"{root}/my-agent", "--yes"),
                env={"MY_SETTING": "1"},
                pass_env=("MY_KEY",),
            ),
            "played": AgentSpec(kind=AgentKind.SCRIPT, script=f"{root}/turns.toml"),
            "codex": AgentSpec(kind=AgentKind.PROFILE, profile="codex"),
        },
        chain=(AgentRef("mine"), AgentRef("mine", "small-model:7b"), AgentRef("played")),
        drains={Drain.REVIEW: (AgentRef("codex"), AgentRef("mine"))},
        checks={
            "lint": Command(run="ruff check ."),
            "test": Command(run="pytest -q", timeout=600.0, env={"A": ""}, pass_env=("B",)),
        },
        worktree=WorktreePolicy(setup=("npm ci",), copy=(".env",), pattern="{repo}-wt-{branch}", cleanup=False),
        limits=Limits(
            continuations=4,
            fix_continuations=5,
            format_retries=0,
            same_agent_retries=1,
            chain_cycles=2,
            review_cycles=0,
            loop_threshold=2,
            calls_per_errand=25,
            call_timeout=5400.0,
            idle_timeout=1200.0,
            check_timeout=60.0,
            orphan_grace=0.0,
            backoff=0.5,
            max_wait=5400.0,
            on_exhausted=OnExhausted.COMMIT,
        ),
        require=Require.CRITERIA,
        escalation=(Way.PLAN_FIRST, AgentRef("mine", "big"), Way.FRESH),
        budget=Budget(calls=200, tokens=5_000_000, usd=20.0, time=28800.0, story=StoryBudget(calls=9, usd=4.5)),
        review=ReviewPolicy(enabled=False),
        pull_request=PullRequestPolicy(create=True, draft=True),
        sandbox=SandboxPolicy(
            mode=SandboxMode.REQUIRE, writable=("/var/cache",), agent_network=False, checks_network=False
        ),
    )


def test_a_loaded_policy_can_be_frozen_into_a_journal(place: Place) -> None:
    """What comes back from JSON is the same policy."""
    policy = place.load(repository=WHOLE).policy
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


def test_without_any_file_the_defaults_hold(place: Place) -> None:
    """And nobody is said to have said anything."""
    loaded = place.load()
    assert (loaded.policy, loaded.values, loaded.origins, loaded.warnings) == (Policy(), {}, {}, ())


def test_outside_of_a_checkout_the_users_file_still_counts(place: Place) -> None:
    """The repository's file is looked for in the root that is given, nowhere else."""
    place.repository.write_text("[limits]\ncontinuations = 9")
    place.user.write_text("[limits]\ncontinuations = 8")
    assert load(root=None, environ=place.environ).policy.limits.continuations == 8


def test_the_layers_are_laid_over_each_other_key_by_key(place: Place) -> None:
    """Each value is the last one said, and remembers where."""
    loaded = place.load(
        user="[limits]\ncontinuations = 1\nformat_retries = 1\n[budget]\ncalls = 5",
        repository="[proof]\nrequire = 'none'\n\n[limits]\nformat_retries = 2",
        flags=Flags(max_calls=7),
    )
    assert loaded.policy.limits == Limits(continuations=1, format_retries=2)
    assert loaded.policy.budget == Budget(calls=7)
    assert loaded.origins == {
        "limits.continuations": Origin(Source.USER, str(place.user), 2),
        "limits.format_retries": Origin(Source.REPOSITORY, str(place.repository), 5),
        "proof.require": Origin(Source.REPOSITORY, str(place.repository), 2),
        "budget.calls": Origin(Source.FLAG, "--max-calls"),
    }


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"HOME": "/h"}, "/h/.config/storyloop/config.toml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/storyloop/config.toml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}, "/h/.config/storyloop/config.toml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/x", "STORYLOOP_CONFIG": "/my.toml"}, "/my.toml"),
        ({"HOME": "/h", "STORYLOOP_CONFIG": ""}, "/h/.config/storyloop/config.toml"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has a directory of its own")
def test_the_users_file_stands_where_the_environment_says(environ: dict[str, str], path: str) -> None:
    """STORYLOOP_CONFIG, then the XDG directory, then the default one."""
    assert user_file(environ) == Path(path)


def test_a_missing_file_that_the_environment_names_is_told(place: Place) -> None:
    """A typing error there would else go unnoticed; an empty device is no mistake."""
    gone = load(root=None, environ={"STORYLOOP_CONFIG": f"{place.root}/gone.toml"})
    assert gone.warnings == (
        f"STORYLOOP_CONFIG names {place.root}/gone.toml, and there is no such file: it says nothing.",
    )
    assert load(root=None, environ={"STORYLOOP_CONFIG": "/dev/null"}).warnings == ()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ('"90s"', 90.0), ('"10m"', 600.0), ('"1h30m"', 5400.0), ('"24h"', 86400.0), ('"500ms"', 0.5),
        ('"1.5h"', 5400.0), ('"1m1s1ms"', 61.001), ("90", 90.0), ("0.25", 0.25), ('"90"', 90.0),
    ],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(place: Place, said: str, seconds: float) -> None:
    """Units from large to small, or a number of seconds."""
    policy = place.load(repository=f"[limits]\ncall_timeout = {said}").policy
    assert policy.limits.call_timeout == pytest.approx(seconds)


@given(st.integers(1, 366 * 24 * 3600 * 1000).map(lambda ms: ms / 1000))
def test_a_duration_that_is_shown_reads_back(seconds: float) -> None:
    """To the millisecond."""
    assert DURATION.read(duration_text(seconds)) == pytest.approx(seconds)


PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_what_is_shown_is_toml(value: object) -> None:
    """Any plain value reads back as itself."""
    assert tomllib.loads(f"value = {literal(value)}")["value"] == value


@pytest.mark.parametrize("setting", [s for s in SETTINGS if default_of(s) not in (None, ())], ids=lambda s: s.key)
def test_a_default_that_is_shown_can_be_written_into_a_file(setting: Any, place: Place) -> None:
    """It is then the same policy as without."""
    shown = literal(setting.kind.write(default_of(setting)))
    section, key = setting.key.split(".")
    assert place.load(user=f"[{section}]\n{key} = {shown}").policy == Policy()


def test_checks_run_in_the_order_of_the_file_that_said_them_last(place: Place) -> None:
    """The user's own come first, but for those that the repository replaces."""
    loaded = place.load(
        user='[checks]\ntest = "a"\nspelling = "b"', repository='[checks]\nlint = "c"\ntest = "d"\nbuild = "e"'
    )
    assert [(name, check.run) for name, check in loaded.policy.checks.items()] == [
        ("spelling", "b"),
        ("lint", "c"),
        ("test", "d"),
        ("build", "e"),
    ]


@pytest.mark.parametrize(
    ("said", "program"),
    [("my-agent", "my-agent"), ("./my-agent", "{root}/my-agent"), ("../bin/x", "{above}/bin/x"), ("/bin/x", "/bin/x")],
)
def test_a_program_of_the_checkout_is_found_from_any_worktree(place: Place, said: str, program: str) -> None:
    """Relative paths are below the user's checkout; a bare name is left to PATH."""
    policy = place.load(repository=f'[agents.mine]\nkind = "command"\ncommand = ["{said}", "./arg"]').policy
    expected = program.format(root=place.root, above=place.root.parent)
    assert policy.agents["mine"].command == (expected, "./arg")


def test_a_tilde_is_the_users_home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell."""
    monkeypatch.setenv("HOME", "/h")
    policy = place.load(repository='[agents.mine]\nkind = "script"\nscript = "~/turns.toml"').policy
    assert policy.agents["mine"].script == "/h/turns.toml"


def test_an_agent_may_be_described_by_two_files_together(place: Place) -> None:
    """Key by key holds within an agent too."""
    policy = place.load(
        user='[agents.mine]\nkind = "command"\nmodel = "large"', repository='[agents.mine]\ncommand = ["x"]'
    ).policy
    assert policy.agents == {"mine": AgentSpec(kind=AgentKind.COMMAND, command=("x",), model="large")}


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[limits]\ncontinuation = 3", "limits.continuation is not a setting. Did you mean limits.continuations?"),
        ("[limit]\ncontinuations = 3", "line 1: limit is not a setting. Did you mean limits?"),
        ("continuations = 3", "line 1: continuations is not a setting. Did you mean limits.continuations?"),
        ("[limits]\nkall-timeout = 3", "limits.kall-timeout is not a setting. Did you mean limits.call_timeout?"),
        ("[drains]\nreviw = ['a']", "line 2: drains.reviw is not a setting. Did you mean drains.review?"),
        ("[agents.mine]\ncomand = ['a']", "agents.mine.comand is not a setting. Did you mean agents.mine.command?"),
        ("[chains]\nnight = ['a']", "line 2: chains.night is not a setting. [chains] knows default."),
        ("[worktree]\nzzz = 1", "worktree.zzz is not a setting. [worktree] knows setup, copy, pattern, cleanup."),
        ("[review]\ndraft = true", "line 2: review.draft is not a setting. Did you mean pull_request.draft?"),
        ("[zzz]\na = 1", "line 1: zzz is not a setting. The sections are agents, budget, chains, checks,"),
        ("limits = 3", "line 1: limits must be a table, not 3. Write [limits]."),
        ("[[checks]]\na = 1", "line 1: checks must be a table, not [{ a = 1 }]. Write [checks]."),
        ("[agents]\nmine = 'x'", 'line 2: agents.mine must be a table, not "x". Write [agents.mine].'),
        ("[checks]\n'a b' = 'x'", 'checks."a b" is not a setting. A name is made of letters, digits, _ and -.'),
        ("[agents.'a.b']\nkind = 'x'", 'agents."a.b" is not a setting. A name is made of letters, digits, _ and -.'),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_file_and_the_nearest_right_key(place: Place, text: str, sentence: str) -> None:
    """So that a typing error is mended, not searched for."""
    assert sentence in place.refusal(repository=text)
    assert place.refusal(repository=text).startswith(f"{place.repository}")


WHOLE_NUMBER = "must be a whole number, {} or more, not {}."
DURATION_ABOVE = 'must be a duration above 0 such as "90s", "10m" or "1h30m", or a number of seconds, not {}.'


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("limits.continuations", '"three"', WHOLE_NUMBER.format(0, '"three"') + " The default is 3."),
        ("limits.continuations", "-1", WHOLE_NUMBER.format(0, "-1")),
        ("limits.continuations", "true", WHOLE_NUMBER.format(0, "true")),
        ("limits.continuations", "3.0", WHOLE_NUMBER.format(0, "3.0")),
        ("limits.continuations", "9999999999999999", "is too large: 1,000,000,000,000,000 is the most."),
        ("limits.chain_cycles", "0", WHOLE_NUMBER.format(1, "0")),
        ("limits.loop_threshold", "1", WHOLE_NUMBER.format(2, "1")),
        ("limits.calls_per_errand", "0", WHOLE_NUMBER.format(1, "0")),
        ("limits.call_timeout", "0", DURATION_ABOVE.format("0")),
        ("limits.call_timeout", '"5 minutes"', DURATION_ABOVE.format('"5 minutes"')),
        ("limits.call_timeout", '"30m1h"', DURATION_ABOVE.format('"30m1h"')),
        ("limits.call_timeout", '""', DURATION_ABOVE.format('""')),
        ("limits.call_timeout", "inf", DURATION_ABOVE.format("inf")),
        ("limits.call_timeout", "nan", DURATION_ABOVE.format("nan")),
        ("limits.call_timeout", "true", DURATION_ABOVE.format("true")),
        ("limits.call_timeout", '"9000h"', 'is too long: 8784h is the most. The default is "1h".'),
        ("limits.max_wait", "-1", 'must be a duration such as "90s"'),
        ("limits.on_exhausted", '"stop"', 'must be "block" or "commit", not "stop". The default is "block".'),
        ("proof.require", "[]", 'must be "checks" or "criteria" or "none", not [].'),
        ("budget.calls", "0", WHOLE_NUMBER.format(1, "0")),
        ("budget.usd", "0", "must be a number above 0, not 0."),
        ("budget.usd", "nan", "must be a number above 0, not nan."),
        ("budget.usd", '"20"', 'must be a number above 0, not "20".'),
        ("review.enabled", '"no"', 'must be true or false, not "no".'),
        ("sandbox.mode", "false", 'must be "off" or "auto" or "require", not false.'),
        ("sandbox.writable", '"/a"', 'must be a list of texts, not "/a".'),
        ("worktree.setup", '["npm ci", ""]', "has an empty entry"),
        ("worktree.setup", '["npm ci", 3]', 'must be a list of texts, not ["npm ci", 3].'),
        ("worktree.copy", '["/etc/passwd"]', "names /etc/passwd, which is outside of the checkout."),
        ("worktree.copy", '["a/../../b"]', "names a/../../b, which is outside of the checkout."),
        ("worktree.pattern", '"work"', "must have {branch} in it"),
        ("worktree.pattern", '"{branch}-{run}"', "knows {repo} and {branch} only."),
        ("worktree.pattern", '"../{branch}"', "is the name of a sibling of the repository"),
        ("checks.test", '" "', "is empty"),
        ("checks.test", "3", "must be a command, or a table with run, timeout, env and pass_env, not 3."),
        ("checks.test", '{ timeout = "1m" }', 'has no command: write run = "...".'),
        ("checks.test", '{ run = "x", timout = "1m" }', "has timout, but its table knows run, timeout, env, pass_env"),
        ("checks.test", '{ run = "x", timeout = 0 }', "has a timeout that " + DURATION_ABOVE.format("0")),
        ("checks.test", '"a\\u0000b"', "holds a NUL character"),
        ("agents.mine.kind", '"comand"', 'must be "command" or "script" or "acp", not "comand".'),
        ("agents.mine.command", "[]", "is empty: its first entry is the program."),
        ("agents.mine.command", '"./my-agent"', 'must be a list of texts, not "./my-agent".'),
        ("agents.mine.env", "{ A = 1 }", 'gives A the value 1: it must be a text, A = "...".'),
        ("agents.mine.env", '{ "A B" = "1" }', "names A B, which cannot be a variable's name."),
        ("agents.mine.pass_env", '["A=1"]', "names A=1, which cannot be a variable's name."),
        ("chains.default", "[]", "is empty: name at least one agent."),
        ("chains.default", '"mine"', 'must be a list of agents, each "agent" or "agent:model", not "mine".'),
        ("drains.story", '["mine", "mine"]', "names mine twice"),
        ("drains.story", '["mine:"]', 'has the entry "mine:": write "agent:model".'),
        ("escalation.attempts", '["fersh"]', 'has the entry "fersh": did you mean "fresh"?'),
        ("escalation.attempts", '["agnet:mine"]', 'has the entry "agnet:mine": did you mean "agent:mine"?'),
        ("escalation.attempts", '["zzz"]', 'has the entry "zzz": the entries are "continue", "fresh", "plan-f'),
        ("escalation.attempts", '["agent:"]', 'has the entry "agent:": write "agent:NAME" or "agent:NAME:MODEL".'),
        ("escalation.attempts", '["agent:mine:"]', 'has the entry "mine:": write "agent:model".'),
        ("escalation.attempts", '"fresh"', 'must be a list of "continue", "fresh", "plan-first", "smaller-steps", "'),
        ("drains.story", '[":small"]', 'has the entry ":small": write "agent:model".'),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_in_a_sentence(
    place: Place, key: str, value: str, sentence: str
) -> None:
    """The sentence says what is accepted, and what was met."""
    section, _, last = key.rpartition(".")
    refusal = place.refusal(repository=f"[{section}]\n{last} = {value}")
    assert f"{place.repository}, line 2: {key} {sentence}" in refusal
    assert len(refusal.splitlines()) == 1


def test_everything_that_is_wrong_is_told_at_once(place: Place) -> None:
    """In both files and in the flags, each with its place."""
    assert place.refusal(
        user="[limits]\nloop_threshold = 1\n\n[bugdet]\n",
        repository='[checks]\ntest = ""\n[chains]\ndefault = ["mnie"]\n' + MINE,
        flags=Flags(max_time="soon"),
    ).splitlines() == [
        f"{place.user}, line 2: limits.loop_threshold must be a whole number, 2 or more, not 1. The default is 5.",
        f"{place.user}, line 4: bugdet is not a setting. Did you mean budget?",
        f"{place.repository}, line 2: checks.test is empty: fill it in, or remove it.",
        '--max-time: budget.time must be a duration above 0 such as "90s", "10m" or "1h30m", or a number of seconds,'
        ' not "soon".',
        f"{place.repository}, line 4: chains.default names mnie, but there is no such agent. Did you mean mine?"
        ' A new agent is described in [agents.mnie] with kind = "command" (any program), "acp" (any ACP'
        ' agent) or "script" (a file of turns).',
    ]


def test_one_mistake_is_told_once(place: Place) -> None:
    """An agent whose command is wrong is not missed by its chain, nor is one of a file that is no TOML."""
    text = '[agents.mine]\nkind = "command"\ncommand = []\n[chains]\ndefault = ["mine"]'
    assert len(place.refusal(repository=text).splitlines()) == 1
    assert len(place.refusal(user="[agents", repository='[chains]\ndefault = ["mine"]').splitlines()) == 1


def _directory(path: Path) -> None:
    path.mkdir()


def _bytes(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_directory, ": This is a directory, not a file."),
        (os.mkfifo, ": This is not a file that holds text."),
        (_loop, ": This file cannot be read: Too many levels of symbolic links."),
        (_bytes(b"# a\n# \xff\n"), ", line 2: This line is not UTF-8. Save the file as UTF-8."),
        (_bytes(b"#" * 1_000_001), ": This file is larger than 1,000,000 bytes."),
        (_bytes(b"[limits]\na ! 1"), ", line 2: This is not valid TOML: Expected '=' after a key"),
        (_bytes(b"[limits]\na = 1\na = 2"), ", line 3: This is not valid TOML: Cannot overwrite a value"),
        (_bytes(b'a = "b'), ", line 1: This is not valid TOML: Unterminated string"),
        (_bytes(b"a = " + b"9" * 5000), ": This is not valid TOML: Exceeds the limit"),
        (_bytes(b"a = " + b"[" * 100_000), ": This is not TOML that can be read: it nests too deeply."),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(
    place: Place, make: Callable[[Path], None], sentence: str
) -> None:
    """No traceback, no waiting, and the place where it is known."""
    make(place.repository)
    assert place.refusal().startswith(f"{place.repository}{sentence}")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_without_permission_is_refused_in_a_sentence(place: Place) -> None:
    """It is not taken for an absent one."""
    place.repository.write_text("")
    place.repository.chmod(0)
    assert place.refusal().startswith(f"{place.repository}: This file cannot be read: Permission denied.")


def test_a_byte_order_mark_is_no_mistake(place: Place) -> None:
    """Editors of another world write one."""
    place.repository.write_bytes(b"\xef\xbb\xbf[limits]\ncontinuations = 7")
    assert place.load().policy.limits.continuations == 7


# --- agents and chains -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[chains]\ndefault = ["mien"]\n', "chains.default names mien, but there is no such agent. Did you mean mine"),
        ('[chains]\ndefault = ["zzz"]\n', "such agent. Described are mine, other. Built in are claude, codex, open"),
        ('[escalation]\nattempts = ["agent:cluade"]\n', "names cluade, but there is no such agent. Did you mean"),
        ('[drains]\nreview = ["zzz"]\n', "line 2: drains.review names zzz, but there is no such agent."),
        ('[agents.a]\ncommand = ["x"]\n', 'line 2: agents.a has no kind. Write kind = "command" (any program)'),
        ('[agents.a]\nkind = "command"\n', 'agents.a is of kind "command", but has no command. Write command = ["./'),
        ('[agents.a]\nkind = "script"\n', 'of kind "script", but has no script. Write script = "turns.toml".'),
        ('[agents.a]\nkind = "script"\nscript = "a"\ncommand = ["a"]\n', 'but has a command. Remove one'),
        ('[agents.a]\nkind = "acp"\n', 'of kind "acp", but has no command. Write command = ["my-agent", "--acp"], the'),
        ('[agents.a]\nkind = "acp"\nprofile = "pi"\n', 'agents.a is pi, which does not speak ACP. Remove kind'),
        ('[agents.aider]\nkind = "acp"\n', "agents.aider is aider, which does not speak ACP. Remove kind"),
        ('[agents.a]\nprofile = "cluade"\n', "has the profile cluade, but no such agent is built in. Did you mean cla"),
        ('[agents.a]\nprofile = "zzz"\n', "no such agent is built in. Built in are claude, codex, opencode,"),
        ('[agents.a]\nkind = "command"\ncommand = ["a"]\nprofile = "pi"\n', "but has a profile. Remove one of the"),
        ('[agents.claude]\ncommand = ["x"]\n', "agents.claude is the built-in agent claude, but has a command. Remo"),
        ('[agents.a]\nprofile = "pi"\nscript = "x"\n', "agents.a is the built-in agent pi, but has a script. Remove i"),
        ('[chains]\ndefault = ["cluade"]\n', "chains.default names cluade, but there is no such agent. Did you mean c"),
    ],
)  # fmt: skip
def test_an_agent_that_cannot_be_asked_is_an_error_where_it_would_be(place: Place, text: str, sentence: str) -> None:
    """Unknown ones with the nearest known one."""
    refusal = place.refusal(repository=text + MINE)
    assert len(refusal.splitlines()) == 1
    assert sentence in refusal


def test_a_built_in_agent_needs_no_entry(place: Place) -> None:
    """A chain may simply name it, and a model with it; what no chain names is not in the policy."""
    policy = place.load(repository='[chains]\ndefault = ["claude:small"]\n[drains]\nreview = ["codex"]\n').policy
    assert policy.agents == {
        "claude": AgentSpec(kind=AgentKind.PROFILE, profile="claude"),
        "codex": AgentSpec(kind=AgentKind.PROFILE, profile="codex"),
    }


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ('[agents.claude]\nmodel = "m"', "claude", AgentSpec(kind=AgentKind.PROFILE, profile="claude", model="m")),
        (
            '[agents.work]\nprofile = "claude"\naccount = "firm"\nparallel = 2\nenv = { CLAUDE_CONFIG_DIR = "/w" }',
            "work",
            AgentSpec(
                kind=AgentKind.PROFILE, profile="claude", account="firm", parallel=2, env={"CLAUDE_CONFIG_DIR": "/w"}
            ),
        ),
        ('[agents.gemini]\nkind = "acp"', "gemini", AgentSpec(kind=AgentKind.ACP, profile="gemini")),
        ('[agents.g]\nkind = "acp"\nprofile = "gemini"', "g", AgentSpec(kind=AgentKind.ACP, profile="gemini")),
        (
            '[agents.gemini]\nkind = "acp"\ncommand = ["mine", "--acp"]',
            "gemini",
            AgentSpec(kind=AgentKind.ACP, command=("mine", "--acp")),
        ),
    ],
)
def test_an_entry_says_what_is_different_from_the_built_in_agent(
    place: Place, text: str, name: str, spec: AgentSpec
) -> None:
    """Under its own name, or under one of the user's; by its stream, or by ACP."""
    assert place.load(repository=text).policy.agents == {name: spec}


def test_an_agent_of_ones_own_may_have_a_known_name(place: Place) -> None:
    """With a kind it is described completely."""
    policy = place.load(
        repository='[agents.claude]\nkind = "command"\ncommand = ["c"]\n[chains]\ndefault = ["claude"]'
    ).policy
    assert policy.chain == (AgentRef("claude"),)


# --- the user's word against the repository's --------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "users", "repositorys", "holds", "source"),
    [
        ("budget.calls", "10", "20", 10, Source.USER),
        ("budget.calls", "10", "5", 5, Source.REPOSITORY),
        ("budget.tokens", "10", "20", 10, Source.USER),
        ("budget.usd", "2.5", "3", 2.5, Source.USER),
        ("budget.time", '"1h"', '"2h"', 3600.0, Source.USER),
        ("budget.time", '"1h"', '"59m"', 3540.0, Source.REPOSITORY),
        ("sandbox.mode", '"require"', '"auto"', SandboxMode.REQUIRE, Source.USER),
        ("sandbox.mode", '"auto"', '"off"', SandboxMode.AUTO, Source.USER),
        ("sandbox.mode", '"off"', '"auto"', SandboxMode.AUTO, Source.REPOSITORY),
        ("sandbox.mode", None, '"off"', SandboxMode.OFF, Source.REPOSITORY),
        ("budget.calls", None, "500", 500, Source.REPOSITORY),
        ("budget.story.usd", "2.5", "3", 2.5, Source.USER),
        ("budget.story.usd", "2.5", "2", 2.0, Source.REPOSITORY),
        ("limits.continuations", "1", "9", 9, Source.REPOSITORY),
    ],
)
def test_a_repository_tightens_the_users_budget_and_sandbox_but_never_loosens_them(
    place: Place, key: str, users: str | None, *, repositorys: str, holds: object, source: Source
) -> None:
    """And what was ignored is told."""
    section, _, name = key.rpartition(".")
    own = "" if users is None else f"[{section}]\n{name} = {users}"
    loaded = place.load(user=own, repository=f"[{section}]\n{name} = {repositorys}")
    assert value_in(loaded.policy, key) == holds
    assert loaded.origins[key].source is source
    assert any("may tighten it, but not loosen it to" in each for each in loaded.warnings) == (source is Source.USER)


def test_an_ignored_value_is_told_with_both_places(place: Place) -> None:
    """So that nobody wonders which file to change."""
    assert place.load(user="[budget]\nusd = 5", repository="[budget]\nusd = 7.5").warnings == (
        f"budget.usd stays 5.0, as {place.user}, line 2 says."
        f" {place.repository}, line 2 may tighten it, but not loosen it to 7.5.",
    )


# --- flags -------------------------------------------------------------------------------------------


def test_flags_are_the_users_own_hand(place: Place) -> None:
    """They may loosen what every file says."""
    text = '[budget]\ncalls = 1\ntokens = 1\nusd = 1\ntime = "1s"'
    flags = Flags(
        max_calls=2, max_tokens=3, max_usd=4.5, max_time="1h", no_wait=True, no_review=True, pull_request=True
    )
    policy = place.load(user=text, repository=text, flags=flags).policy
    assert policy == Policy(
        budget=Budget(calls=2, tokens=3, usd=4.5, time=3600.0),
        review=ReviewPolicy(enabled=False),
        pull_request=PullRequestPolicy(create=True),
        no_wait=True,
    )


def test_agents_given_as_flags_are_the_only_ones_of_the_escalation_too(place: Place) -> None:
    """Entries that name others are continuations; when a run is resumed as well."""
    text = MINE + '[escalation]\nattempts = ["agent:mine", "fresh", "agent:other"]\n[limits]\ncontinuations = 3\n'
    chosen = (Way.CONTINUE, Way.FRESH, AgentRef("other"))
    flags = Flags(agents=("other",))
    assert place.load(repository=text, flags=flags).policy.escalation == chosen
    assert amended(place.load(repository=text).policy, flags).escalation == chosen


def test_entries_of_an_escalation_that_no_attempt_reaches_are_told(place: Place) -> None:
    """It adds no attempt."""
    text = '[limits]\ncontinuations = 2\n[escalation]\nattempts = ["continue", "fresh", "agent:claude"]\n'
    told = "escalation.attempts has 3 entries, but limits.continuations allows 2: what is behind them is never reached."
    assert place.load(repository=text).warnings == (told,)
    assert place.load(repository=text.replace("2", "3")).warnings == ()


def test_no_pull_request_can_be_said_against_a_file(place: Place) -> None:
    """`--no-pr` is more than the absence of `--pr`."""
    loaded = place.load(repository="[pull_request]\ncreate = true", flags=Flags(pull_request=False))
    assert loaded.policy.pull_request.create is False
    assert loaded.origins["pull_request.create"] == Origin(Source.FLAG, "--no-pr")


def test_agents_given_as_flags_are_the_only_ones_asked(place: Place) -> None:
    """They become the chain; drains that must be bound to run stay bound, to them."""
    text = MINE + '[chains]\ndefault = ["claude"]\n[drains]\nstory = ["mine"]\ncommit = ["mine"]\n'
    loaded = place.load(repository=text, flags=Flags(agents=("other", "other:small")))
    chosen = (AgentRef("other"), AgentRef("other", "small"))
    assert loaded.policy.chain == chosen
    assert loaded.policy.drains == {Drain.COMMIT: chosen}
    assert "drains.story" not in loaded.origins


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (Flags(agents=("othr",)), "--agent: chains.default names othr, but there is no such agent. Did you mean"),
        (Flags(agents=("mine", "mine")), "--agent: chains.default names mine twice"),
        (Flags(max_calls=0), "--max-calls: budget.calls must be a whole number, 1 or more, not 0."),
        (Flags(max_usd=-1), "--max-usd: budget.usd must be a number above 0, not -1."),
    ],
)  # fmt: skip
def test_a_flag_that_makes_no_sense_is_named(place: Place, flags: Flags, sentence: str) -> None:
    """By its own name, as it was typed."""
    assert place.refusal(repository=MINE, flags=flags).startswith(sentence)


def test_a_frozen_policy_is_amended_without_reading_files(place: Place) -> None:
    """What the flags do not say stays exactly as it was."""
    frozen = place.load(repository=WHOLE, flags=Flags(no_wait=True)).policy
    place.repository.write_text("[agents")
    assert amended(frozen, Flags()) == frozen
    assert amended(frozen, Flags(max_calls=300)) == msgspec.structs.replace(
        frozen, budget=msgspec.structs.replace(frozen.budget, calls=300)
    )
    assert amended(frozen, Flags(agents=("played",))) == msgspec.structs.replace(
        frozen,
        chain=(AgentRef("played"),),
        drains={},
        escalation=(Way.PLAN_FIRST, Way.CONTINUE, Way.FRESH),
    )
    amendment = amended(frozen, Flags(agents=("gemini",)))
    assert amendment.agents == {**frozen.agents, "gemini": AgentSpec(kind=AgentKind.PROFILE, profile="gemini")}
    with pytest.raises(ConfigErrors, match=r"^--agent: .* names playd, .* Did you mean played\?"):
        amended(frozen, Flags(agents=("playd",)))


# --- showing and setting -----------------------------------------------------------------------------


def test_every_value_in_force_is_shown_with_its_origin(place: Place) -> None:
    """Agents one by one, then all settings in the order of the documentation."""
    loaded = place.load(
        user="[limits]\ncontinuations = 7",
        repository=MINE + '[chains]\ndefault = ["mine:small"]\n[checks]\ntest = { run = "t", timeout = 90 }',
    )
    shown = {row.key: (row.text, str(row.origin)) for row in rows(loaded)}
    file = f"{place.repository}, line "
    assert list(shown)[:4] == ["agents.mine.kind", "agents.mine.command", "agents.other.kind", "agents.other.command"]
    assert shown["agents.mine.command"] == ('["mine"]', f"{file}3")
    assert shown["chains.default"] == ('["mine:small"]', f"{file}8")
    assert shown["drains.story"] == ("not set", "default")
    assert shown["checks.test"] == ('{ run = "t", timeout = "1m30s" }', f"{file}10")
    assert shown["limits.continuations"] == ("7", f"{place.user}, line 2")
    assert shown["limits.call_timeout"] == ('"1h"', "default")
    assert shown["limits.on_exhausted"] == ('"block"', "default")
    assert shown["budget.usd"] == ("not set", "default")
    assert {s.key for s in SETTINGS if "*" not in s.key} < set(shown)


def test_a_key_or_a_section_can_be_asked_for(place: Place) -> None:
    """Anything else is answered with the nearest right key."""
    loaded = place.load(repository=MINE)
    assert [(row.key, row.value) for row in rows(loaded, "review")] == [
        ("review.enabled", True),
        ("review.per_story", False),
        ("review.severity", "major"),
    ]
    assert [row.key for row in rows(loaded, "agents.mine")] == ["agents.mine.kind", "agents.mine.command"]
    assert [row.value for row in rows(loaded, "limits.max_wait")] == ["24h"]
    assert rows(loaded, "checks") == rows(loaded, "agents.min") == ()
    with pytest.raises(ConfigErrors, match=r"^limits.max_wiat is not a setting. Did you mean limits.max_wait\?$"):
        rows(loaded, "limits.max_wiat")


COMMENTED = """\
# ours
[limits]  # how long
call_timeout = "10m"  # slow machine

[checks]
test = "pytest -q"   # fast
"""


def test_setting_a_value_keeps_every_comment(place: Place) -> None:
    """Only the value changes, to the byte."""
    place.repository.write_text(COMMENTED)
    assert place.set("limits.call_timeout", "20m") == COMMENTED.replace("10m", "20m")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("limits.continuations", "7", 7),
        ("limits.call_timeout", "90s", "90s"),
        ("limits.call_timeout", "90", 90),
        ("budget.tokens", "1_000", 1000),
        ("review.enabled", "false", False),
        ("checks.test", "pytest -q tests", "pytest -q tests"),
        ("checks.test", "true", "true"),
        ("checks.test", '"quoted"', "quoted"),
        ("checks.test", "a\nb = 1", "a\nb = 1"),
        ("checks.test", '{ run = "t", timeout = "1m" }', {"run": "t", "timeout": "1m"}),
        ("worktree.setup", '["a", "b"]', ["a", "b"]),
        ("agents.mine", '{ kind = "command", command = ["x"] }', {"kind": "command", "command": ["x"]}),
        ("agents.claude.model", "5", "5"),
    ],
)
def test_a_value_is_given_as_toml_or_as_the_text_it_is(place: Place, key: str, text: str, value: object) -> None:
    """Quotes can be left out where a text is wanted; a text is never a way to say more than one key."""
    found: Any = tomllib.loads(place.set(key, text))
    for step in key.split("."):
        assert list(found) == [step]
        found = found[step]
    assert found == value


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("limits.continuations", "three", "limits.continuations must be a whole number"),
        ("limits.continuations", "3\nformat_retries = 3", "limits.continuations must be a whole number"),
        ("limits.continuation", "3", "limits.continuation is not a setting. Did you mean limits.continuations?"),
        ("chains.default", '["mine"]', "chains.default names mine, but there is no such agent."),
        ("checks.test", '""', "checks.test is empty"),
        ("checks.test", "\udcff", "checks.test is not UTF-8."),
        ("checks", "3", "checks must be a table, not 3."),
        ("checks.*", "x", "checks.* is not a setting. [checks] knows"),
        ("agents.a b", "{}", "agents.a b is not a setting."),
    ],
)  # fmt: skip
def test_nothing_invalid_is_written(place: Place, key: str, text: str, sentence: str) -> None:
    """The file stays as it is, to the byte."""
    place.repository.write_text(COMMENTED)
    with pytest.raises(ConfigErrors) as caught:
        place.set(key, text)
    assert sentence in str(caught.value)
    assert place.repository.read_text() == COMMENTED
    assert os.listdir(place.root) == ["storyloop.toml"]


def test_a_broken_file_is_not_edited(place: Place) -> None:
    """Its first mistake is told instead."""
    place.repository.write_text("limits = 3\n")
    with pytest.raises(ConfigErrors, match=r"limits must be a table\. Write \[limits\] there first\.$"):
        place.set("limits.continuations", "3")
    place.repository.write_text("[limits\n")
    with pytest.raises(ConfigErrors, match="line 1: This is not valid TOML"):
        place.set("limits.continuations", "3")
    assert place.repository.read_text() == "[limits\n"


def test_the_users_own_file_is_made_where_it_belongs(tmp_path: Path) -> None:
    """With its directories; and it has to stand without any repository."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "new/config")}
    written = set_setting("budget.usd", "5", target=Source.USER, root=None, environ=environ)
    assert written.path == tmp_path / "new/config/storyloop/config.toml"
    assert written.path.read_text() == "[budget]\nusd = 5\n"
    with pytest.raises(ConfigErrors, match=r"There is no repository here .* say --user\."):
        set_setting("budget.usd", "5", target=Source.REPOSITORY, root=None, environ=environ)


def test_the_users_own_file_has_to_stand_without_this_repository(place: Place) -> None:
    """It would be an error everywhere else."""
    place.repository.write_text(MINE)
    with pytest.raises(ConfigErrors, match=r"chains\.default names mine"):
        place.set("chains.default", '["mine"]', target=Source.USER)
    assert not place.user.exists()
    assert 'default = ["mine"]' in place.set("chains.default", '["mine"]')


def test_a_check_is_written_on_one_line_and_an_agent_as_a_table(place: Place) -> None:
    """As people write them."""
    place.repository.write_text(COMMENTED)
    text = place.set("checks.test", '{ run = "t", timeout = "1m" }')
    assert text.endswith('[checks]\ntest = {run = "t", timeout = "1m"}   # fast\n')
    text = place.set("agents.mine", '{ kind = "script", script = "a.toml" }')
    assert text.endswith('\n[agents.mine]\nkind = "script"\nscript = "a.toml"\n')


def test_a_value_that_will_not_hold_is_written_with_a_warning(place: Place) -> None:
    """A looser budget in the repository is valid, and ignored."""
    place.user.write_text("[budget]\nusd = 5\n")
    written = set_setting("budget.usd", "7", target=Source.REPOSITORY, root=place.root, environ=place.environ)
    assert "budget.usd stays 5.0" in written.warnings[0]


def test_a_file_is_replaced_through_its_symlink_and_with_its_permissions(place: Place, tmp_path: Path) -> None:
    """As dotfiles are kept."""
    real = tmp_path / "dotfiles.toml"
    real.write_text("")
    real.chmod(0o640)
    place.user.symlink_to(real)
    place.set("limits.continuations", "2", target=Source.USER)
    assert place.user.is_symlink()
    assert real.read_text() == "[limits]\ncontinuations = 2\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_file_that_cannot_be_written_is_told_and_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old file, and nothing beside it."""
    place.repository.write_text(COMMENTED)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigErrors, match=r"cannot be written: No space left on device\. It was left as it is\."):
        place.set("limits.call_timeout", "20m")
    assert place.repository.read_text() == COMMENTED
    assert os.listdir(place.root) == ["storyloop.toml"]


SCATTERED = """\
limits.backoff = 3
[agents.a]
kind = "command"
command = ["a"]
[checks] # all
lint = "x"
[worktree]
setup = [
  "one", # 1
]
[agents.b]
kind = "command"
command = ["b"]
[agents.b.env]
X = "1"
[checks.test]
run = "y"
[budget]
"""
SETTABLE = {
    "limits.backoff": st.integers(0, 9),
    "limits.continuations": st.integers(0, 9),
    "agents.a.model": st.sampled_from(["m", "n"]),
    "agents.b.env": st.dictionaries(st.sampled_from("AB"), st.text("xy")),
    "agents.c": st.just({"kind": "command", "command": ["c"]}),
    "checks.lint": st.sampled_from(["p", "q"]),
    "checks.test": st.sampled_from(["p", "q"]),
    "checks.new": st.just({"run": "r"}),
    "worktree.setup": st.lists(st.sampled_from(["s", "t"])),
    "budget.calls": st.integers(1, 9),
    "proof.require": st.just("none"),
}
CHANGE = st.sampled_from(sorted(SETTABLE)).flatmap(lambda key: st.tuples(st.just(key), SETTABLE[key]))


@settings(max_examples=40, deadline=None)
@given(st.lists(CHANGE, max_size=6))
def test_however_a_file_is_laid_out_setting_changes_that_value_alone(changes: list[tuple[str, Any]]) -> None:
    """Tables that are scattered, dotted, nested or inline; in any order."""
    text, expected = SCATTERED, tomllib.loads(SCATTERED)
    for key, value in changes:
        text = config_edit._edited(text, key, value, path=Path("x"))  # pyright: ignore[reportPrivateUsage]
        table: dict[str, Any] = expected
        *above, last = key.split(".")
        for step in above:
            table = table.setdefault(step, {})
        table[last] = value
        assert tomllib.loads(text) == expected
        assert tomlkit.parse(text).unwrap() == expected


# --- the rest ----------------------------------------------------------------------------------------


def test_the_documentation_lists_every_setting_with_its_default() -> None:
    """In the table's order, word for word."""
    page = Path(__file__).parent.parent / "docs/configuration.md"
    listed = re.findall(r"^\| `([a-z_.*]+)` \| (?:`(.*?)`)? *\| (.*) \|$", page.read_text(), re.MULTILINE)
    assert listed == [
        (
            setting.key,
            "" if default_of(setting) is None else literal(setting.kind.write(default_of(setting))),
            setting.says + (" (later)" if setting.later else ""),
        )
        for setting in SETTINGS
    ]


def test_reading_configuration_does_not_import_what_only_writing_needs() -> None:
    """The fast path stays fast."""
    code = "import sys, storyloop.config; print(*sorted({'tomlkit', 'platformdirs', 'difflib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"

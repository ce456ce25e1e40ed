"""No secret comes to rest in the state directory, wherever a user or an agent has let it slip."""

from pathlib import Path

import pytest

from clikit import User

KNOWN = "correct-horse-battery"  # of no known shape: known by the variable that holds it
SHAPED = "ghp_" + "aB3dE6gH9" * 4
AGENT = f"""\
case $prompt in *correct-horse*|*ghp_aB3*) exit 9;; esac
printf '%s ' "$DEPLOY_TOKEN" "{SHAPED}"
touch "$STORYLOOP_STORY.txt"
case $prompt in *redacted:DEPLOY_TOKEN*) answer completed "$DEPLOY_TOKEN" ;; *) answer failed "$DEPLOY_TOKEN" ;; esac
"""
SPEC = f"""\
# Deploy with {KNOWN}
## Branch
feature/x
## User Stories
### US-001: Make it
Log in with {SHAPED}.
**Acceptance Criteria:**
- [ ] It is there
  verify: `test -f US-001.txt && echo {{word}}`
"""


@pytest.fixture
def user(tmp_path: Path) -> User:
    """She has a repository, an agent and a spec."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    user.has_an_agent()
    user.has_a_spec()
    user.env["DEPLOY_TOKEN"] = KNOWN
    return user


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (f'[agents.two]\nkind = "command"\ncommand = ["two"]\nenv = {{ WORD = "{KNOWN}" }}\n', "agents.two.env"),
        (f'[agents.two]\nkind = "command"\ncommand = ["two"]\nenv = {{ WORD = "{SHAPED}" }}\n', "agents.two.env"),
        ('[agents.two]\nkind = "command"\ncommand = ["two"]\nenv = { API_KEY = "open-sesame" }\n', "agents.two.env"),
        (f'[agents.two]\nkind = "command"\ncommand = ["two", "{SHAPED}"]\n', "agents.two.command"),
        ('[checks]\nt = { run = "true", env = { T_PASSWORD = "open-sesame" } }\n', "checks.t"),
        (f'[checks]\nt = "true {KNOWN}"\n', "checks.t"),
        (f'[worktree]\nsetup = ["true {SHAPED}"]\n', "worktree.setup"),
    ],
)
def test_a_secret_in_the_configuration_is_refused_with_its_key_and_place(user: User, settings: str, told: str) -> None:
    """A policy is journaled as it is, so no run is opened with it."""
    user.has_an_agent(settings=settings)
    done = user.asks("run", "../spec.md")
    assert (done.code, done.out) == (2, "")
    assert f": {told} holds a secret (" in done.err
    assert "storyloop.toml, line " in done.err
    assert "`pass_env`" in done.err
    assert KNOWN not in done.err
    assert SHAPED not in done.err
    assert "open-sesame" not in done.err
    assert not user.state.exists()


def test_a_secret_in_a_command_of_the_spec_is_refused(user: User) -> None:
    """Without it the command would be another one."""
    (user.place / "spec.md").write_text(SPEC.format(word=KNOWN))
    done = user.asks("run", "../spec.md")
    assert (done.code, done.out) == (2, "")
    assert "A `verify:` line of story US-001 holds a secret" in done.err
    assert not user.state.exists()


def test_no_byte_of_the_state_directory_holds_a_secret(user: User) -> None:
    """Neither the spec's, nor a template's, nor a human's, nor what an agent is given by `pass_env` and repeats."""
    user.has_an_agent(
        AGENT, settings='[limits]\ncontinuations = 1\n[checks]\nt = { run = "true", env = { A = "plain" } }'
    )
    config = user.repo / "storyloop.toml"
    config.write_text(config.read_text().replace("[chains]", 'pass_env = ["DEPLOY_TOKEN"]\n[chains]'))
    (user.repo / "storyloop-prompts").mkdir()
    (user.repo / "storyloop-prompts" / "_rules.j2").write_text(f"Never say {SHAPED}.\n")
    (user.place / "spec.md").write_text(SPEC.format(word="well").replace(KNOWN, "the token"))
    done = user.asks("run", "../spec.md")
    assert done.code == 1, done.err
    assert "note: secrets in the spec are left out of all that is kept and asked: github-token" in done.err
    assert (
        user.asks(
            "retry", "--with", f"Use {KNOWN}.", str(user.asks("status", "--json").rows[0]["run_id"]), "US-001"
        ).code
        == 0
    )
    resumed = user.asks("resume", "--prompts")
    assert resumed.code == 0, resumed.err

    stored = {path: path.read_bytes() for path in user.state.rglob("*") if path.is_file()}
    assert len(stored) > 10
    assert any(b"[redacted:DEPLOY_TOKEN]" in content for content in stored.values())
    assert any(b"[redacted:github-token]" in content for content in stored.values())
    holding = [str(path) for path, content in stored.items() if KNOWN.encode() in content or SHAPED.encode() in content]
    assert holding == []

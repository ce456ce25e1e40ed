"""`pr-review` at the command line: a real clone, a bare remote, and the twin of a forge that reads its branches."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "forges"))

from github_twin import GitHubTwin
from twin import TOKEN, Fault, serving

from clikit import User
from gitkit import git

BRANCH = "feature/x"
SETTINGS = '[checks]\ngood = "! grep -q bad a.txt"\n'
# Judges by the numbers of the prompt, and mends what it is told to.
REVIEWER = """\
case "$STORYLOOP_DRAIN" in
triage)
  { echo "<triage>"; cat "$HOME/judged"; echo "</triage>"; } >"$STORYLOOP_ARTIFACT" ;;
fix)
  eval "$(cat "$HOME/mends")"
  echo "<fix-result><status>all_issues_addressed</status><summary>Mended for @ada, fixes !3.</summary></fix-result>" \\
    >"$STORYLOOP_ARTIFACT" ;;
esac
"""


class Reviewed(User):
    """With a branch that is pushed, and an open pull request of it."""

    def __init__(self, place: Path, twin: GitHubTwin) -> None:
        super().__init__(place)
        self.twin, self.bare = twin, place / "acme" / "shop.git"
        self.makes_a_repository({"a.txt": "one\n"})
        self.has_an_agent(REVIEWER, settings=SETTINGS)
        config = self.home / "config" / "storyloop" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[forge]\nkind = "github"\nurl = "{twin.url}"\n')
        self.env["GH_ENTERPRISE_TOKEN"] = TOKEN
        self.git("branch", BRANCH)
        self.git("clone", "--quiet", "--bare", ".", str(self.bare))
        self.git("remote", "add", "origin", f"{twin.url}/acme/shop.git")
        self.git("remote", "set-url", "--push", "origin", str(self.bare))
        twin.repository = self.bare
        twin.open_pull(title="Sell more", body="All.", head=BRANCH, base="main", draft=False, exists=422, lacks=422)

    def judged(self, *asks: str, mends: str = "echo mended >>a.txt") -> None:
        """What its agent says of each concern, and how it mends those that ask for work."""
        lines = [f'<concern number="{n}" asks="{one}">reason {n}</concern>' for n, one in enumerate(asks, start=1)]
        (self.home / "judged").write_text("".join(lines))
        (self.home / "mends").write_text(mends)

    def theirs(self, *words: str) -> str:
        """Git, at the remote."""
        return git(self.bare, *words, env=self.env)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Reviewed]:
    with serving(GitHubTwin(tmp_path)) as twin:
        assert isinstance(twin, GitHubTwin)
        user = Reviewed(tmp_path / "user", twin)
        yield user
        user.leaves()


def test_threads_are_judged_mended_pushed_and_answered_once(user: Reviewed) -> None:
    """Each with its commit; the words of the agent call nobody and close nothing; a second time nothing is left."""
    user.twin.talk(1, "a.txt", 1, "This is wrong.")
    user.twin.talk(1, "a.txt", 1, "Why one?")
    user.judged("real", "question")
    done = user.asks("pr-review", "1", "--push")
    assert done.code == 0, done.err
    tip = user.theirs("rev-parse", BRANCH)
    assert user.theirs("log", "--format=%s", f"main..{BRANCH}") == "Review: mend a.txt:1"
    first, second = (talk.said for talk in user.twin.talks)
    assert first[-1].text.startswith(f"Done in {tip}.\n\n> Mended for @\u200bada, fixes !\u200b3.\n\n<!-- storyloop:")
    assert second[-1].text.startswith("No change was made for this; the answer:\n\n> reason 2\n\n<!-- storyloop:")
    assert [len(first), len(second), any(talk.resolved for talk in user.twin.talks)] == [2, 2, False]
    assert "1. a.txt:1: real: reason 1; PR-1 passed in" in done.out
    again = user.asks("pr-review", "1", "--push")
    assert (again.code, again.out.splitlines()[-1]) == (0, "Nothing is left to be followed up.")
    assert [len(talk.said) for talk in user.twin.talks] == [2, 2]


def test_without_a_word_of_pushing_nothing_leaves_the_machine_until_it_is_delivered(user: Reviewed) -> None:
    """What is to be said waits; `deliver` pushes and says it, and what is done is resolved if the settings say so."""
    user.git("config", "--local", "x.y", "z")  # the clone's own settings matter to nobody
    user.twin.talk(1, "a.txt", 1, "This is wrong.")
    user.judged("real")
    before = user.theirs("rev-parse", BRANCH)
    done = user.asks("pr-review", "1")
    assert (done.code, user.theirs("rev-parse", BRANCH)) == (0, before), done.err
    assert "Push it and answer with: storyloop deliver" in done.out
    assert len(user.twin.talks[0].said) == 1
    delivered = user.asks("deliver")
    assert (delivered.code, user.theirs("rev-parse", BRANCH)) == (0, user.git("rev-parse", BRANCH)), delivered.err
    assert (len(user.twin.talks[0].said), user.twin.pulls[0].body) == (2, "All.")


def test_a_remark_that_cannot_be_mended_is_left_as_it_is(user: Reviewed) -> None:
    """The run has not shipped (exit 1), and says what to do; nothing is said in that thread."""
    user.twin.talk(1, "a.txt", 1, "Make it bad.")
    user.twin.talk(1, "b.txt", 1, "Add it.")
    user.judged(
        "real", "suggestion", mends='case "$STORYLOOP_STORY" in PR-1) echo bad >a.txt;; *) echo b >b.txt;; esac'
    )
    done = user.asks("pr-review", "1", "--push")
    assert done.code == 1, done.err
    assert user.theirs("log", "--format=%s", f"main..{BRANCH}") == "Review: mend b.txt:1"
    assert [len(talk.said) for talk in user.twin.talks] == [1, 2]
    assert "Try a story again with: storyloop retry" in done.out


def test_red_checks_of_the_forge_are_mended_with_the_end_of_their_log(user: Reviewed) -> None:
    """Only when asked; and they have no thread to answer in."""
    user.twin.check(user.theirs("rev-parse", BRANCH), "ci", "red", "E   expected mended")
    user.judged("real")
    assert user.asks("pr-review", "1", "--push").out.endswith("Nothing is left to be followed up.\n")
    done = user.asks("pr-review", "1", "--push", "--ci")
    assert (done.code, user.theirs("log", "--format=%s", f"main..{BRANCH}")) == (0, "Review: mend check ci"), done.err
    prompt = user.asks("show", "--prompt").out
    assert "The check ci is red in the forge's CI. Its log ends with:\nE   expected mended" in prompt


def test_what_an_earlier_run_has_proven_is_proven_again(user: Reviewed) -> None:
    """A mend that breaks a story of the branch is not pushed as if nothing were."""
    spec = user.has_a_spec("US-001", branch="feature/y")
    user.has_an_agent(
        f'case "$STORYLOOP_DRAIN" in story) echo x >US-001.txt; answer completed;; *) {{ {REVIEWER} }};; esac\n',
        settings=SETTINGS,
    )
    assert user.asks("run", spec).code == 0
    user.git("push", "--quiet", "origin", "feature/y")
    user.twin.open_pull(title="Y", body="", head="feature/y", base="main", draft=False, exists=422, lacks=422)
    user.twin.talk(2, "a.txt", 1, "Drop that file.")
    user.judged("real", mends="rm -f US-001.txt")
    done = user.asks("pr-review", "--push")
    assert "final proof: US-001, criterion 1 red" in done.err
    assert user.git("show", "feature/y:US-001.txt") == "x"


def test_a_dry_run_lists_what_was_said_and_nothing_else(user: Reviewed) -> None:
    """As lines and as JSON; no run is opened, nothing is asked of any agent."""
    user.git("switch", "--quiet", BRANCH)
    user.twin.talk(1, "a.txt", 1, "This is\nwrong.", "Yes.")
    done = user.asks("pr-review", "--dry-run")
    assert done.out == ("https://forge.example/acme/shop/pull/1\n  1. a.txt:1\n     ada: This is wrong. ada: Yes.\n"), (
        done.err
    )
    rows = user.asks("pr-review", "--dry-run", "--json").rows
    assert (rows["number"], rows["concerns"][0]["about"]["file"]) == (1, "a.txt")
    assert user.asks("status", "--json").rows == []


BAD: dict[str, tuple[list[str], list[str], str]] = {
    "no pull request": (["switch --quiet -c other"], [], "Branch other has no pull request at GitHub"),
    "no runs": ([], [], "You are at main, and this repository has no runs."),
    "no such number": ([], ["41"], "has nothing there"),
    "watch without push": ([], ["1", "--watch"], "--watch waits for what the forge says of what was pushed."),
    "branch is not here": ([f"branch -D {BRANCH}"], ["1"], f"Branch {BRANCH} of pull request 1 is not in this repo"),
    "branch is checked out": ([f"switch --quiet {BRANCH}"], ["1"], f"Branch {BRANCH} is checked out at"),
    "branch is behind": ([f"branch --force {BRANCH} {BRANCH}~1"], ["1"], "and pull request 1 has other commits"),
    "no remote": (["remote remove origin"], ["1"], "The repository has no remote origin."),
    "a word": ([], ["--push", "nonsense"], "Branch nonsense has no pull request"),
}


@pytest.mark.parametrize(("how", "words", "told"), BAD.values(), ids=BAD)
def test_what_cannot_be_followed_up_is_one_sentence(
    user: Reviewed, how: list[str], words: list[str], told: str
) -> None:
    """With its cure, exit 2, and no run is opened."""
    user.twin.talk(1, "a.txt", 1, "This is wrong.")
    for line in how:
        user.git(*line.split())
    done = user.asks("pr-review", *words)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert "Traceback" not in done.err
    assert user.asks("status", "--json").rows == []


def test_a_pull_request_that_has_ended_is_not_followed_up(user: Reviewed) -> None:
    """Merged, or closed."""
    user.twin.talk(1, "a.txt", 1, "This is wrong.")
    for state in ("merged", "closed"):
        user.twin.pulls[0].state = state
        done = user.asks("pr-review", "1")
        assert (done.code, f"Pull request 1 of {BRANCH} is {state} already" in done.err) == (2, True)


def test_who_is_not_logged_in_is_told_how(user: Reviewed) -> None:
    """Before anything is done."""
    del user.env["GH_ENTERPRISE_TOKEN"]
    done = user.asks("pr-review", "1")
    assert (done.code, "Nobody is logged in to GitHub" in done.err) == (2, True)


def test_a_forge_that_fails_behind_the_push_leaves_the_answers_to_deliver(user: Reviewed) -> None:
    """The work is pushed, the run has shipped, and what is missing is said; nothing is said twice."""
    user.twin.talk(1, "a.txt", 1, "This is wrong.")
    user.twin.talk(1, "b.txt", 1, "Why?")
    user.judged("real", "question")
    user.twin.faults.append(Fault("POST", "replies$", 0, done=True))
    done = user.asks("pr-review", "1", "--push")
    assert done.code == 0, done.err
    assert "does not answer" in done.out
    delivered = user.asks("deliver")
    assert delivered.code == 0, delivered.err
    assert [len(talk.said) for talk in user.twin.talks] == [2, 2]

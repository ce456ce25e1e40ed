"""What every forge promises of the threads of a pull request and of the checks on its commits."""

import os

import pytest
from forgekit import World
from gitea_twin import GiteaTwin
from twin import Fault, Twin

from gitkit import git
from storyloop.core.forge import CheckState, ForgeTrouble, PullRequestText, Trouble

TEXT = PullRequestText(title="Sell more", body="All of it.")


@pytest.fixture
def opened(world: World) -> World:
    """With an open pull request."""
    world.forge.create(TEXT, head="feature/x", base="main", draft=False)
    return world


@pytest.fixture
def reviewed(twin_world: World) -> Twin:
    """A twin with an open pull request."""
    twin_world.forge.create(TEXT, head="feature/x", base="main", draft=False)
    assert twin_world.twin is not None
    return twin_world.twin


def said(world: World) -> list[tuple[str | None, int | None, list[str]]]:
    return [(one.file, one.line, [comment.text for comment in one.comments]) for one in world.forge.threads(1)]


# --- threads --------------------------------------------------------------------------------------------------


def test_unresolved_threads_are_all_there_the_oldest_first(opened: World) -> None:
    """Seven of them, behind pages of three; with file, line and all that was said, and by whom."""
    for number in range(1, 8):
        opened.talk(f"src/{number}.py", number, f"Why {number}?", "And how? ümlaut 🎉")
    assert said(opened) == [(f"src/{n}.py", n, [f"Why {n}?", "And how? ümlaut 🎉"]) for n in range(1, 8)]
    thread = opened.forge.threads(1)[0]
    assert ([comment.author for comment in thread.comments], thread.resolvable) == (["ada", "ada"], True)


def test_without_any_there_are_none(opened: World) -> None:
    """Of a pull request that is there."""
    assert opened.forge.threads(1) == ()


def test_a_thread_on_no_line_any_more_is_told_as_that(opened: World) -> None:
    """The line was changed since."""
    opened.talk("src/a.py", None, "Why?")
    assert said(opened) == [("src/a.py", None, ["Why?"])]


def test_an_answer_is_the_threads_newest_comment(opened: World) -> None:
    """And stands in no other thread; its id is told."""
    opened.talk("src/a.py", 1, "Why?")
    opened.talk("src/b.py", 1, "Why?")
    thread = opened.forge.threads(1)[1]
    assert opened.forge.reply(1, thread, "Because.\n\n<!-- mark -->")
    assert said(opened) == [
        ("src/a.py", 1, ["Why?"]),
        ("src/b.py", 1, ["Why?", "Because.\n\n<!-- mark -->"]),
    ]


def test_a_thread_that_is_resolved_is_gone(opened: World) -> None:
    """Resolved once more, it stays so; others stand."""
    opened.talk("src/a.py", 1, "Why?")
    opened.talk("src/b.py", 1, "Why?")
    thread = opened.forge.threads(1)[0]
    for _ in range(2):
        opened.forge.resolve(1, thread)
    assert [one[0] for one in said(opened)] == ["src/b.py"]


def test_an_answer_is_sent_once(reviewed: Twin, twin_world: World) -> None:
    """However it fails; what was said is there to be found."""
    reviewed.talk(1, "src/a.py", 1, "Why?")
    thread = twin_world.forge.threads(1)[0]
    reviewed.faults.append(Fault("POST", "comments|notes|reviews", 0, done=True))
    with pytest.raises(ForgeTrouble) as lost:
        twin_world.forge.reply(1, thread, "Because.")
    assert lost.value.trouble is Trouble.OFFLINE
    assert said(twin_world) == [("src/a.py", 1, ["Why?", "Because."])]


def test_who_may_not_write_is_told(reviewed: Twin, twin_world: World) -> None:
    """In the forge's words."""
    reviewed.talk(1, "src/a.py", 1, "Why?")
    reviewed.may_write = False
    with pytest.raises(ForgeTrouble) as refused:
        twin_world.forge.reply(1, twin_world.forge.threads(1)[0], "Because.")
    assert refused.value.trouble is Trouble.FORBIDDEN


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_threads_that_cannot_be_read_are_trouble(reviewed: Twin, twin_world: World, status: int) -> None:
    """Never an empty list."""
    reviewed.faults.append(Fault("GET", "reviews|discussions", status, times=5))
    with pytest.raises(ForgeTrouble):
        twin_world.forge.threads(1)


def test_the_threads_of_no_pull_request_are_not_found(twin_world: World) -> None:
    """By its number."""
    with pytest.raises(ForgeTrouble) as refused:
        twin_world.forge.threads(41)
    assert refused.value.trouble is Trouble.NOT_FOUND


@pytest.mark.parametrize("twin_world", ["github", "gitea", "forgejo"], indirect=True)
def test_a_review_that_requests_changes_is_a_thread_until_it_is_taken_back(reviewed: Twin, twin_world: World) -> None:
    """Of each reviewer: an approval takes back; a comment does not. Who says nothing with it has said it elsewhere."""
    for author, state, body in (
        ("ada", "requests-changes", "Split it."),
        ("bob", "requests-changes", "Too long."),
        ("bob", "approved", ""),
        ("ada", "comments", "As I said."),
        ("eve", "requests-changes", ""),
        ("ada", "requests-changes", "And name it."),
    ):
        reviewed.review(1, author, state, body)
    threads = twin_world.forge.threads(1)
    assert [(one.file, one.comments[0].author, one.comments[0].text, one.resolvable) for one in threads] == [
        (None, "ada", "Split it.", False),
        (None, "ada", "And name it.", False),
    ]
    twin_world.forge.reply(1, threads[0], "Done.")
    first, second = twin_world.forge.threads(1)
    assert [len(first.comments), len(second.comments)] == [2, 1]
    assert first.comments[1].text.startswith("Done.\n<!--")


def test_a_comment_on_the_whole_is_no_thread(reviewed: Twin, twin_world: World) -> None:
    """It asks nobody to resolve it."""
    reviewed.add_below("1", "Nice.")
    assert twin_world.forge.threads(1) == ()


@pytest.mark.parametrize("twin_world", ["gitea"], indirect=True)
def test_a_forge_that_cannot_resolve_says_so(reviewed: GiteaTwin, twin_world: World) -> None:
    """With what to do instead."""
    reviewed.is_old = True
    reviewed.talk(1, "src/a.py", 1, "Why?")
    with pytest.raises(ForgeTrouble) as refused:
        twin_world.forge.resolve(1, twin_world.forge.threads(1)[0])
    assert refused.value.trouble is Trouble.NOT_FOUND
    assert refused.value.cure == "Gitea has one since 1.26; resolve it there."


# --- checks ---------------------------------------------------------------------------------------------------


def test_the_newest_run_of_each_check_is_told_with_the_end_of_its_log(reviewed: Twin, twin_world: World) -> None:
    """Of this commit alone, of all pages; a log of any size is cut to its end."""
    tip = git(twin_world.repository, "rev-parse", "feature/x", env=dict(os.environ))
    reviewed.check("0" * 40, "test", "red", "elsewhere")
    reviewed.check(tip, "lint", "red", "old")
    reviewed.check(tip, "build", "pending")
    for number in range(5):
        reviewed.check(tip, f"more-{number}", "green")
    reviewed.check(tip, "lint", "green")
    reviewed.check(tip, "test", "red", "x" * 9_000 + "\nE   assert 1 == 2")
    found = {check.name: check for check in twin_world.forge.checks(tip)}
    assert {name: check.state for name, check in found.items()} == {
        "lint": CheckState.GREEN,
        "build": CheckState.PENDING,
        **{f"more-{number}": CheckState.GREEN for number in range(5)},
        "test": CheckState.RED,
    }
    assert found["test"].tail.endswith("E   assert 1 == 2")
    assert len(found["test"].tail) <= 4_000
    assert (found["lint"].tail, found["test"].url.startswith("https://forge.example/")) == ("", True)


def test_a_red_check_without_a_log_is_red(reviewed: Twin, twin_world: World) -> None:
    """It may have expired, or be of another service."""
    reviewed.check("a" * 40, "test", "red")
    (check,) = twin_world.forge.checks("a" * 40)
    assert (check.state, check.tail) == (CheckState.RED, "")


def test_a_commit_without_checks_has_none(world: World) -> None:
    """That is not green: it is nothing."""
    assert world.forge.checks("b" * 40) == ()


@pytest.mark.parametrize("twin_world", ["gitlab"], indirect=True)
def test_a_job_that_may_fail_is_not_red(reviewed: Twin, twin_world: World) -> None:
    """GitLab lets it pass, too."""
    reviewed.check("a" * 40, "optional lint", "red", "E")
    (check,) = twin_world.forge.checks("a" * 40)
    assert check.state is CheckState.GREEN

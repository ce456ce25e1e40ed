"""What every forge promises of pull requests, however it is spoken to; and how each of its refusals is told."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from forgekit import World
from twin import TOKEN, Fault, Pull

from gitkit import git
from storyloop.core.forge import ForgeTrouble, PullRequestState, PullRequestText, Trouble
from storyloop.core.policy import ForgeKind, ForgePolicy
from storyloop.world import forge_api
from storyloop.world.forges import forge_of

TEXT = PullRequestText(title="Sell more", body="All of it, with ümlauts and 🎉.\n\n- and a list\n")


def opened(world: World, **how: object):
    return world.forge.create(TEXT, **({"head": "feature/x", "base": "main", "draft": False} | how))


def test_a_pull_request_that_was_opened_is_found_as_it_is(world: World) -> None:
    """Every field of it comes back, and the commit is the branch's."""
    made = opened(world)

    found = world.forge.find("feature/x")
    commit = git(world.repository, "rev-parse", "feature/x", env=dict(os.environ))
    assert found == made == world.forge.get(made.number)
    assert (found.title, found.body, found.head, found.base) == (TEXT.title, TEXT.body, "feature/x", "main")
    assert (found.number, found.state, found.draft, found.head_commit) == (1, PullRequestState.OPEN, False, commit)
    assert found.url.endswith("/1")


def test_a_branch_without_one_has_none(world: World) -> None:
    """Not that of another branch."""
    opened(world)

    assert world.forge.find("feature") is None
    assert world.forge.default_branch() == "main"


def test_it_is_found_behind_pages_of_others(world: World) -> None:
    """Seven newer ones stand before it; a page has three."""
    opened(world)
    world.others(7)

    assert world.forge.find("feature/x").number == 1


@pytest.mark.parametrize("state", [PullRequestState.CLOSED, PullRequestState.MERGED])
def test_one_that_has_ended_is_told_as_that(world: World, state: PullRequestState) -> None:
    """Unless there is an open one as well."""
    opened(world)
    world.end(1, state)
    assert world.forge.find("feature/x").state is state

    opened(world)
    assert (world.forge.find("feature/x").number, world.forge.find("feature/x").state) == (2, PullRequestState.OPEN)


def test_a_second_one_of_the_same_branch_is_refused(world: World) -> None:
    """And nothing was made."""
    opened(world)

    with pytest.raises(ForgeTrouble) as refused:
        opened(world)
    assert refused.value.trouble is Trouble.REJECTED
    world.end(1, PullRequestState.CLOSED)
    assert world.forge.find("feature/x").number == 1


def test_a_draft_is_one_until_it_is_ready(world: World) -> None:
    """Its title stays, whatever a forge does with it."""
    draft = opened(world, draft=True)
    assert (draft.draft, draft.title) == (True, "Sell more")

    ready = world.forge.update(draft, body="New.", draft=False)
    assert (ready.draft, ready.title, ready.body) == (False, "Sell more", "New.")
    assert world.forge.find("feature/x") == ready

    again = world.forge.update(ready, body="New.", draft=True)
    assert (again.draft, again.title) == (True, "Sell more")


@pytest.mark.parametrize("way", [{"head": "gone"}, {"base": "gone"}])
def test_one_without_its_branches_is_refused(world: World, way: dict[str, str]) -> None:
    """In the forge's own words."""
    with pytest.raises(ForgeTrouble) as refused:
        opened(world, **way)
    assert refused.value.trouble in (Trouble.REJECTED, Trouble.NOT_FOUND)
    assert world.forge.find("feature/x") is None


def test_one_that_does_not_exist_is_not_found(world: World) -> None:
    """By its number."""
    with pytest.raises(ForgeTrouble) as refused:
        world.forge.get(41)
    assert refused.value.trouble is Trouble.NOT_FOUND


def test_one_from_a_fork_is_not_ours(twin_world: World) -> None:
    """Although its branch has the same name."""
    assert twin_world.twin is not None
    twin_world.twin.pulls.append(Pull(1, "theirs", "", "feature/x", "main", foreign=True))

    assert twin_world.forge.find("feature/x") is None


# --- what goes wrong ------------------------------------------------------------------------------------------

REFUSALS = [
    (401, {}, b'{"message": "Bad credentials"}', Trouble.NOT_LOGGED_IN, "does not know you: Bad credentials"),
    (403, {}, b'{"message": "Must have push access"}', Trouble.FORBIDDEN, "forbids it: Must have push access"),
    (403, {"x-ratelimit-remaining": "0"}, b"", Trouble.LIMITED, "takes no more requests"),
    (403, {}, b'{"message": "You have exceeded a secondary rate limit"}', Trouble.LIMITED, "secondary rate limit"),
    (404, {}, b'{"message": "404 Project Not Found"}', Trouble.NOT_FOUND, "404 Project Not Found"),
    (409, {}, b'{"message": ["Another open merge request"]}', Trouble.REJECTED, "(status 409): Another open merge"),
    (
        422,
        {},
        b'{"message": "Failed", "errors": [{"message": "No commits between"}]}',
        Trouble.REJECTED,
        "Failed; No co",
    ),
    (400, {}, b'{"message": {"base": ["is\\ninvalid"]}}', Trouble.REJECTED, "(status 400): is invalid"),
    (429, {"retry-after": "120"}, b"slow down", Trouble.LIMITED, "takes no more requests until 2"),
    (500, {}, b"<html>oops</html>", Trouble.BROKEN, "fails (status 500)"),
    (502, {}, b"", Trouble.BROKEN, "fails (status 502)"),
]


@pytest.mark.parametrize("by", ["http", "gh"])
@pytest.mark.parametrize(("status", "headers", "body", "trouble", "words"), REFUSALS)
def test_every_refusal_is_one_sentence(
    by: str,
    request: pytest.FixtureRequest,
    status: int,
    headers: dict[str, str],
    body: bytes,
    trouble: Trouble,
    words: str,
) -> None:
    """Of the right kind, with what the forge says, a cure, and no token."""
    if by == "gh" and b'"message": "' not in body and body.startswith(b"{"):
        pytest.skip("gh reads no error in which the message is no text: GitHub has none")
    world = request.getfixturevalue("gh_world") if by == "gh" else request.getfixturevalue("github_world")
    world.twin.faults.append(Fault("POST", "/pulls$", status, headers, body))

    with pytest.raises(ForgeTrouble) as refused:
        opened(world)
    assert (refused.value.trouble, words in refused.value.problem) == (trouble, True), refused.value.problem
    assert refused.value.cure.endswith(".")
    assert "\n" not in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert world.twin.pulls == []


def test_the_end_of_a_limit_is_known(github_world: World) -> None:
    """In seconds from now, or as a moment."""

    def until(headers: dict[str, str]) -> datetime:
        github_world.twin.faults.append(Fault("POST", "/pulls$", 429, headers))
        with pytest.raises(ForgeTrouble) as refused:
            opened(github_world)
        return refused.value.until

    moment = datetime(2100, 1, 1, tzinfo=UTC)
    reset = str(int(moment.timestamp()))
    assert until({"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}) == moment
    before, wait = datetime.now(UTC), timedelta(seconds=500)
    assert before + wait <= until({"retry-after": "500"}) <= datetime.now(UTC) + wait


def test_what_only_reads_is_asked_again(twin_world: World) -> None:
    """After an error of the forge, and after an answer that was cut."""
    opened(twin_world)
    twin_world.twin.faults += [Fault("GET", "", 503), Fault("GET", "", 0)]

    assert twin_world.forge.find("feature/x").number == 1
    assert twin_world.twin.faults[1].times == 0


def test_what_writes_is_sent_once(twin_world: World) -> None:
    """However the answer fails; what was done is there to be found."""
    twin_world.twin.faults.append(Fault("POST", "", 0, done=True))

    with pytest.raises(ForgeTrouble) as lost:
        opened(twin_world)
    assert lost.value.trouble is Trouble.OFFLINE
    assert [call for call in twin_world.twin.calls if call.startswith("POST")] == twin_world.twin.calls[:1]
    assert twin_world.forge.find("feature/x").title == "Sell more"


def test_an_answer_that_does_not_come_is_waited_for_so_long(
    github_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no longer."""
    monkeypatch.setattr(forge_api, "_LONGEST", 0.4)
    github_world.twin.faults.append(Fault("POST", "", 0, seconds=2.0))

    with pytest.raises(ForgeTrouble) as slow:
        opened(github_world)
    assert slow.value.trouble is Trouble.OFFLINE


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"number": "one"}', b"\xff\xfe"])
def test_an_answer_of_another_kind_is_the_forges_fault(twin_world: World, body: bytes) -> None:
    """A proxy's page, perhaps."""
    twin_world.twin.faults.append(Fault("POST", "", 201, {}, body))

    with pytest.raises(ForgeTrouble) as broken:
        opened(twin_world)
    assert broken.value.trouble is Trouble.BROKEN


def test_nobody_there_is_offline() -> None:
    """A port that nothing listens at."""
    forge = forge_of("http://127.0.0.1:9/acme/shop", ForgePolicy(kind=ForgeKind.GITEA), {"GITEA_TOKEN": TOKEN})

    with pytest.raises(ForgeTrouble) as offline:
        forge.default_branch()
    assert offline.value.trouble is Trouble.OFFLINE


# --- which forge ----------------------------------------------------------------------------------------------

ALL_TOKENS = dict.fromkeys(("GH_TOKEN", "GH_ENTERPRISE_TOKEN", "GITLAB_TOKEN", "GITEA_TOKEN"), "x")
URLS = [
    ("https://github.com/acme/shop.git", {}, "GitHub (github.com/acme/shop)"),
    ("https://ada:secret@github.com/acme/shop", {}, "GitHub (github.com/acme/shop)"),
    ("git@github.com:acme/shop.git", {}, "GitHub (github.com/acme/shop)"),
    ("ssh://git@ssh.github.com:443/acme/shop.git", {}, "GitHub (github.com/acme/shop)"),
    ("https://github.example.com/acme/shop.git", {}, "GitHub (github.example.com/acme/shop)"),
    ("git@gitlab.com:acme/tools/shop.git", {}, "GitLab (gitlab.com/acme/tools/shop)"),
    ("https://codeberg.org/acme/shop/", {}, "Forgejo (codeberg.org/acme/shop)"),
    ("ssh://git@gitea.example.com:2222/acme/shop.git", {}, "Gitea (gitea.example.com/acme/shop)"),
    ("git@code.example.com:acme/shop", {"kind": ForgeKind.GITLAB}, "GitLab (code.example.com/acme/shop)"),
    (
        "https://example.com/git/acme/shop.git",
        {"kind": ForgeKind.GITLAB, "url": "https://example.com/git/"},
        "GitLab (example.com/git/acme/shop)",
    ),
]


@pytest.mark.parametrize(("url", "said", "name"), URLS)
def test_the_forge_is_told_from_the_remotes_url(url: str, said: dict[str, object], name: str) -> None:
    """Or by what `[forge]` says; a password in it is never shown."""
    assert forge_of(url, ForgePolicy(**said), ALL_TOKENS).name == name  # pyright: ignore[reportArgumentType]


NONE = [
    ("/srv/git/shop.git", ALL_TOKENS, Trouble.NOT_FOUND, "is not that of a repository on a forge"),
    ("file:///srv/git/shop.git", ALL_TOKENS, Trouble.NOT_FOUND, "is not that of a repository on a forge"),
    ("https://github.com/shop", ALL_TOKENS, Trouble.NOT_FOUND, "is not that of a repository on a forge"),
    ("https://git.example.com/acme/shop", ALL_TOKENS, Trouble.NOT_FOUND, "Which forge runs on git.example.com"),
    ("https://github.com/acme/shop", {"GITLAB_TOKEN": "x"}, Trouble.NOT_LOGGED_IN, "Nobody is logged in to GitHub"),
    ("https://gitlab.com/acme/shop", {}, Trouble.NOT_LOGGED_IN, "Nobody is logged in to GitLab"),
    ("https://github.example.com/a/b", {"GH_TOKEN": "x"}, Trouble.NOT_LOGGED_IN, "Nobody is logged in to GitHub"),
]


@pytest.mark.parametrize(("url", "environ", "trouble", "words"), NONE)
def test_what_is_no_forge_of_ours_is_said(url: str, environ: dict[str, str], trouble: Trouble, words: str) -> None:
    """And github.com's token is for no other host."""
    with pytest.raises(ForgeTrouble) as none:
        forge_of(url, ForgePolicy(), environ)
    assert none.value.trouble is trouble
    assert words in none.value.problem

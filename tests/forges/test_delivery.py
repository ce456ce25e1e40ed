"""Delivery for real: the program, a bare remote on disk, the forges' twins; what is in the way, and what it leaves."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from forgekit import TWINS
from twin import TOKEN, Fault, Twin, serving

from clikit import User, ended, until
from gitkit import commit_files, git

SPEC = "../spec.md"
AGENT = 'env >>"$HOME/environment"; echo "$STORYLOOP_STORY" >"$STORYLOOP_STORY.txt"; answer completed "Made. @ada"\n'
HEAD = "feature/x"


class Shop:
    """A user with a clone of `acme/shop`, which lies on disk as a bare repository, with a forge's twin before it."""

    def __init__(self, place: Path, twins: ExitStack, name: str = "github") -> None:
        self.user = User(place)
        self.user.makes_a_repository()
        self.bare = place / "acme" / "shop.git"
        git(place, "clone", "--quiet", "--bare", str(self.user.repo), str(self.bare), env=self.user.env)
        kind, (twin, _, self.token) = name, TWINS[name]
        self.twin: Twin = twins.enter_context(serving(twin(self.bare)))
        self.user.env |= {self.token: TOKEN}
        self.user.git("remote", "add", "origin", f"{self.twin.url}/acme/shop.git")
        self.user.git("remote", "set-url", "--push", "origin", str(self.bare))
        self.user.has_an_agent(AGENT, settings=f'[forge]\nkind = "{kind}"\n')
        self.user.git("push", "--quiet", "origin", "main")
        self.user.has_a_spec(title="Sell more, @bob")

    def pushed(self) -> str:
        """What the remote's branch holds."""
        return self.twin.commit(HEAD)

    def here(self) -> str:
        return self.user.git("rev-parse", HEAD)

    def heads(self) -> list[tuple[str, str, bool]]:
        return [(pull.head, pull.state, pull.draft) for pull in self.twin.pulls]


@pytest.fixture
def shops(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Makes one."""
    made: list[Shop] = []
    with ExitStack() as twins:

        def make(name: str = "github") -> Shop:
            made.append(Shop(tmp_path / f"user-{name}", twins, name))
            return made[-1]

        yield make
        for shop in made:
            shop.user.leaves()


@pytest.mark.parametrize("name", list(TWINS))
def test_a_run_pushes_and_opens_one_pull_request(shops: Callable[..., Shop], name: str) -> None:
    """At each forge: to the branch it began from, worded by us, once; and no token is kept or given away."""
    shop = shops(name)
    done = shop.user.asks("run", SPEC, "--pr")

    assert done.code == 0, done.err
    assert "\ndelivery      pushed to origin, where a pull request is opened\n" in done.err
    assert shop.pushed() == shop.here()
    (pull,) = shop.twin.pulls
    assert (pull.head, pull.base, pull.state, pull.draft) == (HEAD, "main", "open", False)
    assert pull.title == "Sell more, @\u200bbob"
    assert "### US-001 Make US-001\n\nMade. @\u200bada\n\n- It is there: proven by `test -f US-001.txt`" in pull.body
    assert f"pull request https://forge.example/acme/shop/{'' if name != 'gitlab' else '-/'}" in done.out

    again = shop.user.asks("deliver")
    assert (again.code, again.out) == (0, f"{done.out.partition('pull request ')[2].split()[0]}\n"), again.err
    assert "pull request brought up to date" in again.err
    assert len(shop.twin.pulls) == 1
    kept = [path for path, text in shop.user.belongings().items() if isinstance(text, bytes) and TOKEN.encode() in text]
    assert kept == []


def test_the_real_gh_delivers(shops: Callable[..., Shop], tmp_path: Path) -> None:
    """Logged in by its own file, and without a token in the environment."""
    if shutil.which("gh") is None:
        pytest.skip("gh is not installed")
    shop = shops()
    config = tmp_path / "gh"
    config.mkdir()
    (config / "hosts.yml").write_text(f"github.localhost:\n    user: ada\n    oauth_token: {TOKEN}\n")
    shop.user.env.pop(shop.token)
    shop.user.env |= {"GH_CONFIG_DIR": str(config), "http_proxy": shop.twin.url}
    shop.user.git("remote", "set-url", "origin", "https://github.localhost/acme/shop.git")

    done = shop.user.asks("run", SPEC, "--pr", "--draft")
    assert (done.code, shop.heads()) == (0, [(HEAD, "open", True)]), done.err


def test_what_a_check_says_of_the_remote_is_not_heeded(shops: Callable[..., Shop]) -> None:
    """Tests of an agent's run in the final proof, too: where a push goes is what the user's settings say."""
    shop = shops()
    elsewhere = shop.user.home / "elsewhere.git"
    git(shop.user.home, "init", "--quiet", "--bare", str(elsewhere), env=shop.user.env)
    diverts = f"git config remote.origin.pushurl {elsewhere}"
    settings = f'[forge]\nkind = "github"\n[checks]\ndiverts = "{diverts}"\n'
    shop.user.has_an_agent(AGENT, settings=settings)
    shop.user.git("push", "--quiet", "origin", "main")
    done = shop.user.asks("run", SPEC, "--pr")

    assert (done.code, git(elsewhere, "for-each-ref", env=shop.user.env)) == (0, ""), done.err
    assert shop.pushed() == shop.here()


def test_what_did_not_ship_is_a_draft_until_it_does(shops: Callable[..., Shop]) -> None:
    """And then it is ready for review; what a person wrote into it stays."""
    shop = shops()
    shop.user.has_an_agent('[ -e "$HOME/help" ] && echo 1 >"$STORYLOOP_STORY.txt"; answer completed\n',
                           settings='[forge]\nkind = "github"\n[limits]\ncontinuations = 1\n')  # fmt: skip
    shop.user.git("push", "--quiet", "origin", "main")
    spec = shop.user.has_a_spec("US-001", "US-002")
    spec.write_text(spec.read_text().replace("test -f US-001.txt", "test -f README"))
    done = shop.user.asks("run", SPEC, "--pr")
    run = shop.user.asks("status", "--json").rows[0]["run_id"]
    if not shop.twin.pulls:  # nothing was committed: nothing to deliver
        assert shop.pushed() == ""
    (shop.user.home / "help").touch()
    assert done.code == 1
    for story in ("US-001", "US-002"):
        shop.user.asks("retry", run, story)
    assert shop.user.asks("resume", run).code == 0
    assert [pull.draft for pull in shop.twin.pulls] == [False]


# --- what is in the way -----------------------------------------------------------------------------------------


def no_remote(shop: Shop) -> None:
    shop.user.git("remote", "remove", "origin")


def a_remote(shop: Shop) -> None:
    shop.user.git("remote", "add", "origin", f"{shop.twin.url}/acme/shop.git")
    shop.user.git("remote", "set-url", "--push", "origin", str(shop.bare))


def no_token(shop: Shop) -> None:
    shop.user.env.pop(shop.token)


def a_token(shop: Shop) -> None:
    shop.user.env[shop.token] = TOKEN


def wrong_token(shop: Shop) -> None:
    shop.user.env[shop.token] = "wrong-token-0123456789"


def gone(shop: Shop) -> None:
    shop.bare.rename(shop.bare.with_name("away.git"))


def back(shop: Shop) -> None:
    shop.bare.with_name("away.git").rename(shop.bare)


def protected(shop: Shop) -> None:
    hook = shop.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'protected branch' >&2\nexit 1\n")
    hook.chmod(0o755)


def unprotected(shop: Shop) -> None:
    (shop.bare / "hooks" / "pre-receive").unlink()


def theirs(shop: Shop) -> None:
    clone = shop.user.place / "theirs"
    git(shop.user.place, "clone", "--quiet", str(shop.bare), str(clone), env=shop.user.env)
    git(clone, "switch", "--quiet", "--create", HEAD, env=shop.user.env)
    commit_files(clone, {"theirs.txt": "1\n"}, env=shop.user.env)
    git(clone, "push", "--quiet", "origin", HEAD, env=shop.user.env)


def not_theirs(shop: Shop) -> None:
    git(shop.bare, "update-ref", "-d", f"refs/heads/{HEAD}", env=shop.user.env)


def elsewhere(shop: Shop) -> None:
    shop.user.git("remote", "set-url", "origin", str(shop.bare))


def here(shop: Shop) -> None:
    shop.user.git("remote", "set-url", "origin", f"{shop.twin.url}/acme/shop.git")


def forbidden(shop: Shop) -> None:
    shop.twin.may_write = False


def allowed(shop: Shop) -> None:
    shop.twin.may_write = True


def down(shop: Shop) -> None:
    shop.twin.faults.append(Fault("GET", "", 500, times=100))


def limited(shop: Shop) -> None:
    shop.twin.faults.append(Fault("POST", "", 403, {"retry-after": "60"}, times=100))


def well(shop: Shop) -> None:
    shop.twin.faults.clear()


def ended_meanwhile(shop: Shop) -> None:
    shop.twin.open_pull(title="", body="", head="main", base="main", draft=False, exists=0, lacks=0).head = HEAD
    shop.twin.pulls[0].state = "closed"


def reopened(shop: Shop) -> None:
    shop.twin.pulls[0].state = "open"


def unknown_kind(shop: Shop) -> None:
    file = shop.user.repo / "storyloop.toml"
    file.write_text(file.read_text().replace('[forge]\nkind = "github"\n', ""))


def known_kind(shop: Shop) -> None:
    file = shop.user.repo / "storyloop.toml"
    file.write_text(file.read_text() + '[forge]\nkind = "github"\n')


def empty(shop: Shop) -> None:
    git(shop.bare, "symbolic-ref", "HEAD", "refs/heads/none", env=shop.user.env)


def not_empty(shop: Shop) -> None:
    git(shop.bare, "symbolic-ref", "HEAD", "refs/heads/main", env=shop.user.env)


BAD = {
    "no remote": (no_remote, "The repository has no remote origin. Add it with `git remote add`", False, a_remote),
    "not logged in": (no_token, "Nobody is logged in to GitHub (127.0.0.1:", True, a_token),
    "another token": (wrong_token, "does not know you: Bad credentials", True, a_token),
    "the remote is gone": (gone, "`git ls-remote` to the remote origin failed", False, back),
    "a protected branch": (protected, "protected branch", False, unprotected),
    "a branch with commits of others": (theirs, "has commits that this run does not know", False, not_theirs),
    "no forge": (elsewhere, "is not that of a repository on a forge", True, here),
    "no right": (forbidden, "forbids it: Resource not accessible", True, allowed),
    "a forge that fails": (down, "fails (status 500): made to fail", True, well),
    "a spent rate limit": (limited, "takes no more requests until", True, well),
    "a closed one": (ended_meanwhile, "is closed already. Reopen it", True, reopened),
    "an unknown forge": (unknown_kind, "Which forge runs on 127.0.0.1 cannot be told from its name.", True, known_kind),
    "an empty remote": (empty, "The remote origin has no default branch yet", False, not_empty),
}


@pytest.mark.parametrize("what", BAD)
def test_whatever_is_in_the_way_the_work_is_safe_and_delivered_later(shops: Callable[..., Shop], what: str) -> None:
    """The run ends as it would have; one sentence and its cure; `deliver` says it again, and does it once it can."""
    spoil, words, pushed, mend = BAD[what]
    shop = shops()
    spoil(shop)
    done = shop.user.asks("run", SPEC, "--pr")
    assert done.code == 0, done.err
    assert words in done.out
    (row,) = shop.user.asks("status", "--json").rows
    run = row["run_id"][:8]
    assert f"Deliver it with: storyloop deliver {run}" in done.out
    assert (shop.pushed() == shop.here()) is pushed
    assert words in row["waits_for"]
    again = shop.user.asks("deliver", run)
    assert (again.code, again.out) == (1, "")
    assert sum(words in line for line in again.err.splitlines()) == 1, again.err
    assert TOKEN not in done.err + done.out + again.err

    mend(shop)
    done = shop.user.asks("deliver", run, "--json")
    assert done.code == 0, done.err
    assert (done.rows["pushed"], done.rows["missing"]) == (shop.here(), None)
    assert shop.pushed() == shop.here()
    assert [pull.state for pull in shop.twin.pulls] == ["open"]
    (report,) = (shop.user.state / "runs").glob("*/report.md")
    assert "pull request https://forge.example" in report.read_text()
    assert words not in report.read_text()


def test_a_template_that_is_no_utf_8_is_left_out_and_said(shops: Callable[..., Shop]) -> None:
    """The pull request is opened without it."""
    shop = shops()
    commit_files(shop.user.repo, {".github/PULL_REQUEST_TEMPLATE.md": b"# Gr\xfc\xdfe\n"}, env=shop.user.env)

    done = shop.user.asks("run", SPEC, "--pr")
    assert (done.code, len(shop.twin.pulls)) == (0, 1)
    (report,) = (shop.user.state / "runs").glob("*/report.md")
    assert "PULL_REQUEST_TEMPLATE.md was not used for the pull request: it is not in UTF-8." in report.read_text()


def test_nothing_is_delivered_that_nobody_wants(shops: Callable[..., Shop]) -> None:
    """Not without `--pr`; not with `--no-pr`, whatever the repository says; and not of a run without a commit."""
    shop = shops()
    file = shop.user.repo / "storyloop.toml"
    file.write_text(file.read_text() + "[pull_request]\ncreate = true\n")
    assert shop.user.asks("run", SPEC, "--no-pr").code == 0
    assert (shop.pushed(), shop.twin.calls) == ("", [])

    shop.user.has_an_agent("answer failed\n")
    shop.user.has_a_spec("US-009", branch="feature/y")
    assert shop.user.asks("run", SPEC, "--pr").code == 1
    done = shop.user.asks("deliver")
    assert (done.code, shop.twin.calls) == (2, [])
    assert "has committed nothing. There is nothing to deliver." in done.err


def test_a_repository_may_not_say_where_tokens_are_sent(shops: Callable[..., Shop]) -> None:
    """Nor name an option of git's in the place of a remote."""
    shop = shops()
    file = shop.user.repo / "storyloop.toml"
    plain = file.read_text()
    file.write_text(plain + 'url = "http://127.0.0.1:9"\n')
    assert "forge.url is yours to say, not a repository's." in shop.user.asks("run", SPEC, "--pr").err

    file.write_text(plain + '[pull_request]\nremote = "--upload-pack=touch ../pwned"\n')
    done = shop.user.asks("run", SPEC, "--pr")
    assert "The repository has no remote --upload-pack=touch ../pwned." in done.out
    assert not (shop.user.place / "pwned").exists()


def test_hooks_do_not_run_and_agents_move_no_remote(shops: Callable[..., Shop]) -> None:
    """What an agent does to git's settings is undone before the push asks them where to go."""
    shop = shops()
    other = shop.user.place / "other.git"
    git(shop.user.place, "init", "--quiet", "--bare", str(other), env=shop.user.env)
    hook = shop.user.repo / ".git" / "hooks" / "pre-push"
    hook.write_text(f"#!/bin/sh\ntouch {shop.user.place}/hooked\n")
    hook.chmod(0o755)
    shop.user.has_an_agent(f"git config remote.origin.pushurl {other}; {AGENT}", settings='[forge]\nkind = "github"\n')

    assert shop.user.asks("run", SPEC, "--pr").code == 0
    assert shop.pushed() == shop.here()
    assert git(other, "for-each-ref", env=shop.user.env) == ""
    assert not (shop.user.place / "hooked").exists()


def test_a_remote_that_is_added_while_a_run_waits_is_there_for_good(shops: Callable[..., Shop]) -> None:
    """Nothing of the run's is at work then, so what changes in git's settings is the user's own doing."""
    shop = shops()
    no_remote(shop)
    assert shop.user.asks("run", SPEC, "--pr", "--step").code == 3
    a_remote(shop)
    run = shop.user.asks("status", "--json").rows[0]["run_id"]
    assert shop.user.asks("approve", run).code == 0

    done = shop.user.asks("resume", run)
    assert (done.code, shop.heads()) == (0, [(HEAD, "open", False)]), done.out
    assert shop.user.git("remote") == "origin"


# --- cut ----------------------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("call", ["GET", "POST"])
def test_a_kill_at_any_call_to_the_forge_leaves_one_pull_request(
    shops: Callable[..., Shop], call: str, behind: bool
) -> None:
    """Before the forge has done it, or behind: resumed, there is one, with one part of ours."""
    shop = shops()
    process = shop.user.starts("run", SPEC, "--pr", "-q")
    if behind:
        shop.twin.behind = lambda request: process.kill() if request.method == call else None
    else:
        shop.twin.faults.append(Fault(call, "", 0, seconds=20.0))
        until(lambda: any(seen.startswith(call) for seen in shop.twin.calls))
        process.kill()
    assert ended(process).code == -signal.SIGKILL
    shop.twin.behind = lambda _: None
    shop.twin.faults.clear()

    done = shop.user.asks("resume")
    assert done.code == 0, done.err
    assert shop.heads() == [(HEAD, "open", False)]
    assert shop.twin.pulls[0].body.count("<!-- storyloop -->") == 1
    assert shop.pushed() == shop.here()


@pytest.mark.processes
def test_an_interrupt_does_not_wait_for_a_slow_forge(shops: Callable[..., Shop]) -> None:
    """It leaves before the request gives up, after half a minute; and the run goes on later."""
    shop = shops()
    shop.twin.faults.append(Fault("POST", "", 0, seconds=600.0))
    process = shop.user.starts("run", SPEC, "--pr")
    until(lambda: "POST /repos/acme/shop/pulls" in shop.twin.calls)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=25)
    assert process.returncode == 130

    assert shop.user.asks("resume").code == 0
    assert len(shop.twin.pulls) == 1

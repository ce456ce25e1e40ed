"""Word is sent to whoever is not watching, by Apprise to a server of our own; a run never depends on it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clikit import User

SPEC = "../spec.md"
TOKEN = "tk-4d6f6e6b-not-to-be-seen"
LIMIT = """[ $STORYLOOP_CALL = 1 ] && {
  printf '{"failure": {"class": "limit", "message": "No quota.", "resets_at": "2001-01-01T00:00:00Z"}}' \
    >"$STORYLOOP_REPORT"; exit 1; }
touch "$STORYLOOP_STORY.txt"; answer completed
"""


class Server:
    """Keeps every JSON that is posted to it; told to, it never answers."""

    def __init__(self) -> None:
        self.got: list[dict[str, str]] = []
        self.answers = threading.Event()
        self.answers.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answers.wait(30)
                outer.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"json://127.0.0.1:{self.http.server_address[1]}/{TOKEN}"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.got]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.answers.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """She has a repository, an agent that does its work, and a spec of two stories."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    user.has_an_agent()
    user.has_a_spec("US-001", "US-002")
    yield user
    user.leaves()


def has_settings(user: User, text: str) -> None:
    """In her own file."""
    file = Path(user.env["XDG_CONFIG_HOME"], "storyloop", "config.toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"[notify]\n{text}\n")


def test_word_is_sent_when_a_run_is_parked_a_story_blocked_a_limit_met_and_at_the_end(
    user: User, server: Server
) -> None:
    """With what happened, how the run stands, and the way on; to an address from the file or from a variable."""
    has_settings(user, 'urls = ["$HOOK"]')
    user.has_an_agent(LIMIT, settings='[limits]\nbackoff = "10ms"\n')
    parked = user.asks("run", SPEC, "--max-calls", "2", HOOK=server.url)
    assert (parked.code, "note" in parked.err) == (4, False)
    assert server.titles == ["Storyloop, A spec: limit", "Storyloop, A spec: parked"]
    assert "No quota." in server.got[0]["message"]
    assert "Parked: 1 of 2 stories passed; the run's budget of 2 calls is used up" in server.got[1]["message"]
    assert "storyloop resume " in server.got[1]["message"]

    user.has_an_agent("answer failed No.\n")
    has_settings(user, f'urls = ["{server.url}"]\non = ["finished", "blocked"]')
    assert user.asks("resume", "--max-calls", "99").code == 1
    assert server.titles[2:] == ["Storyloop, A spec: blocked", "Storyloop, A spec: finished"]


def test_no_address_is_journaled_or_shown(user: User, server: Server) -> None:
    """Not by a failure either, nor by the settings."""
    has_settings(user, f'urls = ["{server.url}", "nonsense://{TOKEN}", "json://127.0.0.1:1/{TOKEN}", "$UNSET"]')
    done = user.asks("run", SPEC)
    assert (done.code, server.titles) == (0, ["Storyloop, A spec: finished"])
    assert "note: a notification was not sent: nonsense, json, $UNSET could not be reached" in done.err
    said = done.out + done.err
    for words in (
        ("config", "show"),
        ("config", "get", "notify.urls"),
        ("show", "--json"),
        ("show", "--events", "--json"),
    ):
        said += user.asks(*words).out
    assert '"json://...", "nonsense://..."' in said
    kept = [path for path in user.state.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert (TOKEN in said, kept) == (False, [])


def test_a_server_that_never_answers_holds_nobody_up(user: User, server: Server) -> None:
    """The run goes on at once; at its end it is waited for a few seconds, and that is said."""
    server.answers.clear()
    has_settings(user, f'urls = ["{server.url}?rto=60"]')
    done = user.asks("run", SPEC)
    assert (done.code, server.got) == (0, [])
    assert "note: not every notification was sent within 5 s" in done.err


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (f'urls = "slack://{TOKEN}"', "notify.urls must be a list of URLs"),
        (f'urls = ["{TOKEN}"]', 'notify.urls has an entry that is neither a URL nor "$NAME"'),
        ('on = ["finish"]', 'notify.on must be "parked" or "blocked" or "finished" or "limit", not "finish"'),
    ],
)
def test_a_wrong_setting_is_told_without_the_address(user: User, settings: str, told: str) -> None:
    """Before anything starts."""
    has_settings(user, settings)
    done = user.asks("run", SPEC)
    assert (done.code, told in done.err, TOKEN in done.err) == (2, True, False)


def test_a_repository_cannot_say_where_word_is_sent(user: User) -> None:
    """It would be committed, and it would be somebody else's address."""
    user.has_an_agent(settings='[notify]\nurls = ["json://127.0.0.1:1/"]\n')
    done = user.asks("run", SPEC)
    assert (done.code, "notify.urls is yours to say, not a repository's" in done.err) == (2, True)

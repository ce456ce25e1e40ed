"""Redaction: no secret stays in what we store or show, and nothing else is touched."""

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storyloop.agents.processes import ProcessAgents
from storyloop.core.facts import Answered
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Command, Drain
from storyloop.ports.agents import Activity, CallOrder
from storyloop.ports.checks import CheckOrder
from storyloop.world.checks import SupervisedChecks
from storyloop.world.redaction import Redactor

# Made of parts, so that no scanner takes this file for a leak.
TOKENS = {
    "api-key": [
        "sk-" + "ant-api03-" + "aB3" * 30,
        "sk-" + "proj-" + "T3xt_" * 20,
        "sk-" + "0123456789abcdef" * 3,
        "sk-" + "or-v1-" + "0a1b2c3d" * 8,
    ],
    "github-token": ["ghp_" + "a1B2" * 9, "gho_" + "Zz09" * 9, "github_pat_" + "1A" * 11 + "_" + "b2" * 29],
    "gitlab-token": ["glpat-" + "x1Y2-" * 4],
    "aws-key": ["AKIA" + "IOSFODNN7EXAMPLE", "ASIA" + "IOSFODNN7EXAMPLE"],
    "google-key": ["AIza" + "SyA-1234567890_abcdefghijklmnopqrst"],
    "slack-token": ["xoxb-" + "123456789012-" * 2 + "abcDEF"],
    "npm-token": ["npm_" + "a1B2" * 9],
    "jwt": ["eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"],
    "private-key": [
        f"-----BEGIN {kind}PRIVATE KEY-----\n{'MIIEow+/0' * 50}\n-----END {kind}PRIVATE KEY-----"
        for kind in ("", "RSA ", "OPENSSH ")
    ],
}  # fmt: skip
CASES = [(name, token) for name, tokens in TOKENS.items() for token in tokens]


@pytest.mark.parametrize(("name", "token"), CASES, ids=[f"{name}-{token[:8]}" for name, token in CASES])
@pytest.mark.parametrize("around", ["{}", "key={}\n", '{{"key":"{}"}}', "Authorization: Bearer {} (sent)", "({})."])
def test_a_token_of_a_known_shape_is_replaced_by_its_kind(name: str, token: str, around: str) -> None:
    """Wherever it stands, and nothing around it goes with it."""
    assert Redactor({}).text(around.format(token)) == around.format(f"[redacted:{name}]")
    assert Redactor({}).find(around.format(token).encode()) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "4dcd8f64-c8c3-496f-b361-c09a8e60cf8d",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        f"data:image/png;base64,{base64.b64encode(bytes(range(256)) * 64).decode()}",
        "sk-test, sk-1234567890, sk-ant-test, sk-proj-fake",
        "class='sk-fading-circle sk-circle'  task-management-with-a-very-long-name-2024-and-more-words",
        "ghp_short, disk-usage-report-for-2024-with-many-words-in-its-name, npm_config_cache=/x",
        "https://example.com:8080/a@b  git@github.com:owner/name.git  ssh://git@host:22/x",
        "postgres://shop:shop@db/test  https://user:password@example.com  https://u:$TOKEN@host",
        "mysql://app:hunter2222@localhost/app  redis://:@127.0.0.1",
        "-----BEGIN CERTIFICATE-----\nMIIEow\n-----END CERTIFICATE-----",
        'if line == "-----BEGIN PRIVATE KEY-----": ...  # until "-----END PRIVATE KEY-----"',
        "xoxo-hugs-and-kisses-from-all-of-us, AKIA, AIzaSy, eyJhbGciOiJIUzI1NiJ9",
        "MAKIAIOSFODNN7EXAMPLE  AKIAIOSFODNN7EXAMPLEWITHMORE",
    ],
)
def test_what_only_looks_a_little_like_a_secret_stays(text: str) -> None:
    """A redaction that eats hashes and fixtures would be turned off."""
    assert Redactor({}).text(text) == text


def test_images_and_hashes_by_the_megabyte_stay() -> None:
    """Base64 and hexadecimal digits, five megabytes of each; the same dice each time: one in sixty spells a token."""
    noise = random.Random(7).randbytes(3_750_000)
    data = base64.b64encode(noise) + b"\n" + base64.urlsafe_b64encode(noise) + b"\n" + noise.hex().encode()
    assert Redactor({}).find(data) == []


def test_the_password_of_an_address_goes_and_the_address_stays() -> None:
    """So it can still be told what was reached."""
    text = "postgres://app:hunter22@db.example.com/app"
    assert Redactor({}).text(text) == "postgres://app:[redacted:url-password]@db.example.com/app"


NAMES = ("ANTHROPIC_API_KEY", "GH_TOKEN", "DJANGO_SECRET", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "DB_PASSWORD",
         "GOOGLE_CREDENTIALS_JSON", "npm_authtoken", "OPENAI_APIKEY")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_value_of_a_telling_variable_is_known(name: str) -> None:
    """And it is told which variable it was."""
    assert Redactor({name: "correct horse"}).text("a correct horse b") == f"a [redacted:{name}] b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDITOR", "correct-horse"),
        ("KEYBOARD_LAYOUT", "correct-horse"),
        ("MAX_TOKENS", "10000000"),
        ("TOKENIZERS_PARALLELISM", "disabled"),
        ("SOME_TOKEN", "short"),
        ("SIGNING_KEY", "/home/ada/key.pem"),
        ("SIGNING_KEY", "~/keys/key.pem"),
        ("SECRET_SERVICE", "https://vault.example.com/v1"),
        ("USE_SECRET", "disabled"),
    ],
)
def test_other_variables_are_no_secrets(name: str, value: str) -> None:
    """Not by their name, or because a path, an address or a switch opens nothing."""
    assert Redactor({name: value}).text(f"x {value} y") == f"x {value} y"


def test_a_known_token_goes_by_its_variable() -> None:
    """That says more than its kind."""
    token = TOKENS["github-token"][0]
    assert Redactor({"GH_TOKEN": token}).text(f"<{token}>") == "<[redacted:GH_TOKEN]>"


@pytest.mark.parametrize("value", ['quote"inside', "back\\slash-in", "two\nlines-of", "grün-und-blau", "tab\tin-it-is"])
def test_a_value_is_found_inside_of_json(value: str) -> None:
    """However it is escaped there; and what was JSON still is."""
    redactor = Redactor({"MY_SECRET": value})
    for ascii_only in (True, False):
        line = json.dumps({"text": f"it is {value}!"}, ensure_ascii=ascii_only)
        assert json.loads(redactor.data(line.encode())) == {"text": "it is [redacted:MY_SECRET]!"}
    assert redactor.text(f"it is {value}!") == "it is [redacted:MY_SECRET]!"


def test_json_with_a_private_key_is_still_json() -> None:
    """Also where the key's lines are escaped."""
    line = json.dumps({"a": TOKENS["private-key"][1], "b": 'say "x"', "c": f"u://a:b-c-d-e@{TOKENS['jwt'][0]}"})
    told = json.loads(Redactor({}).data(line.encode()))
    assert told == {"a": "[redacted:private-key]", "b": 'say "x"', "c": "u://a:[redacted:url-password]@[redacted:jwt]"}


def test_of_two_values_the_longer_one_goes_whole() -> None:
    """Else half of it would stay."""
    redactor = Redactor({"A_KEY": "correct-horse", "B_KEY": "correct-horse-battery"})
    assert redactor.text("correct-horse-battery correct-horse") == "[redacted:B_KEY] [redacted:A_KEY]"


def test_a_redactor_learns_of_more_without_forgetting() -> None:
    """An agent's own variables count for its call."""
    redactor = Redactor({"A_KEY": "correct-horse"}).knowing({"B_KEY": "battery-staple", "PLAIN": "unremarkable"})
    assert redactor.find(b"correct-horse battery-staple unremarkable") == ["A_KEY", "B_KEY"]


def test_redacted_text_stays_as_it_is() -> None:
    """So it does no harm to redact at several places."""
    redactor = Redactor({"A_TOKEN": "correct-horse"})
    once = redactor.text(" ".join([*(token for _, token in CASES), "correct-horse", "https://u:hunter22@host"]))
    assert redactor.text(once) == once


# --- files --------------------------------------------------------------------------------------------


def test_a_file_is_replaced_by_a_private_copy(tmp_path: Path) -> None:
    """Complete, in its place, for us alone; nothing else is left in the directory."""
    spool = tmp_path / "stdout"
    spool.write_bytes(b"\xff one correct-horse two\r\n")
    spool.chmod(0o644)
    (tmp_path / "stdout.redacted").write_text("left by a crash")
    assert Redactor({"A_KEY": "correct-horse"}).file(spool) == ["A_KEY"]
    assert spool.read_bytes() == b"\xff one [redacted:A_KEY] two\r\n"
    assert spool.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["stdout"]


def test_a_file_without_secrets_is_not_touched(tmp_path: Path) -> None:
    """It is only read."""
    spool = tmp_path / "stdout"
    spool.write_bytes(b"nothing\n" * 1000)
    before = spool.stat()
    assert Redactor({"A_KEY": "correct-horse"}).file(spool) == []
    assert spool.stat().st_ino == before.st_ino


SECRETS = (TOKENS["api-key"][0], "correct-horse-" * 20, TOKENS["private-key"][0], "https://u:hunter22@host")


@pytest.mark.parametrize("secret", SECRETS, ids=["token", "value", "key", "address"])
def test_a_secret_on_the_border_of_two_reads_is_found(tmp_path: Path, secret: str) -> None:
    """At every distance from the border at which it is cut, and at those where it just is not."""
    redactor = Redactor({"A_KEY": "correct-horse-" * 20})
    spool = tmp_path / "stdout"
    clean = redactor.text(f" {secret} ").encode()
    for border in ((1 << 20) - (1 << 15), 1 << 20, 2 << 20):
        for shift in range(-len(secret) - 2, 3, max(1, len(secret) // 7)):
            before = b"." * (border + shift)
            spool.write_bytes(before + f" {secret} ".encode() + b"," * (1 << 20))
            redactor.file(spool)
            assert spool.read_bytes() == before + clean + b"," * (1 << 20), (border, shift)


def test_many_secrets_in_a_large_file_all_go(tmp_path: Path) -> None:
    """A file is redacted to what its text would be redacted to as a whole."""
    redactor = Redactor({"A_KEY": "correct-horse"})
    line = f"x {TOKENS['jwt'][0]} y correct-horse z sk-test {'.' * 991}\n"
    spool = tmp_path / "stdout"
    spool.write_text(line * 5000)
    assert set(redactor.file(spool)) == {"jwt", "A_KEY"}
    assert spool.read_text() == redactor.text(line) * 5000


# --- agents and checks --------------------------------------------------------------------------------

SPEAKER = """
echo "out correct-horse"; echo "err $MY_TOKEN" >&2
cat > $STORYLOOP_ARTIFACT <<END
<development-result><status>completed</status><summary>The key is correct-horse.</summary></development-result>
END
"""
ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "USER_SECRET": "correct-horse"}


def test_what_an_agent_prints_and_answers_is_kept_without_secrets(tmp_path: Path) -> None:
    """The user's and its own, in its output, in its answer and in what is seen of it; the spools stay private."""
    (tmp_path / "worktree").mkdir()
    order = CallOrder(
        run_id="run-1",
        key="US-001/1/story/0/1",
        call_dir=str(tmp_path / "call"),
        worktree=str(tmp_path / "worktree"),
        ref=AgentRef("mine"),
        agent=AgentSpec(kind=AgentKind.COMMAND, command=("sh", "-c", SPEAKER), env={"MY_TOKEN": "battery-staple"}),
        drain=Drain.STORY,
        story="US-001",
        attempt=0,
        call=1,
        mode="fresh",
        session=None,
        prompt="Do it.",
        call_timeout=20.0,
        idle_timeout=20.0,
        orphan_grace=1.0,
    )
    watch = ProcessAgents(ENVIRON).launch(order)
    report = watch.wait(20)
    assert report is not None
    assert report.snippet == "out [redacted:USER_SECRET]\n"
    assert isinstance(report.outcome, Answered)
    assert "The key is [redacted:USER_SECRET]." in str(report.outcome.artifact)
    assert watch.activity() == Activity(text="out [redacted:USER_SECRET]")
    assert (tmp_path / "call" / "stderr").read_text() == "err [redacted:MY_TOKEN]\n"
    assert {(tmp_path / "call" / name).stat().st_mode & 0o777 for name in ("stdout", "stderr")} == {0o600}


def test_what_a_check_prints_is_kept_without_secrets(tmp_path: Path) -> None:
    """Its file, what is told of it, and the digest that proves it, which is that of the file as it is kept."""
    command = Command(run="echo correct-horse; echo $MY_TOKEN >&2; exit 1", env={"MY_TOKEN": "battery-staple"})
    order = CheckOrder(
        check_dir=str(tmp_path / "check"),
        run_dir=str(tmp_path),
        worktree=str(tmp_path),
        command=command,
        timeout=20.0,
    )
    measured = SupervisedChecks(ENVIRON).run(order, threading.Event())
    assert measured is not None
    kept = (tmp_path / measured.output).read_bytes()
    assert kept == b"[redacted:USER_SECRET]\n[redacted:MY_TOKEN]\n"
    assert measured.tail.encode() == kept.rstrip()
    assert (measured.output_digest, measured.output_size) == (hashlib.sha256(kept).hexdigest(), len(kept))


@pytest.mark.slow
def test_a_large_file_costs_no_memory(tmp_path: Path) -> None:
    """100 MB of an agent's stream with three secrets looked for: memory stays flat."""
    event = {
        "type": "assistant",
        "message": {"content": [{"type": "text", "text": "It is _done_: see src/a-b.py. " * 9}]},
    }
    lines = (json.dumps(event) + "\n").encode() * 2000
    spool = tmp_path / "stdout"
    with spool.open("wb") as file:
        for part in range(100_000_000 // len(lines)):
            file.write(lines + (b"correct-horse\n" if part % 150 == 70 else b""))
    script = f"""if True:
        import resource
        from pathlib import Path
        from storyloop.world.redaction import Redactor
        redactor = Redactor({{"A_KEY": "correct-horse", "B_KEY": "battery-staple", "C_TOKEN": "0f1e2d3c4b5a"}})
        floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert redactor.file(Path({str(spool)!r})) == ["A_KEY"]
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - floor)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # kilobytes

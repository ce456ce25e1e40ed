"""The contract of the `Accounts` port, for files that processes share and for one process."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storyloop.ports.agents import Accounts, Limited
from storyloop.world.accounts import FileAccounts, MemoryAccounts

MET = Limited(until=datetime(2026, 3, 1, 12, tzinfo=UTC), reason="five hours are used up")
LATER = Limited(until=datetime(2026, 3, 1, 18, tzinfo=UTC), reason="again")


@pytest.fixture(params=["files", "memory"])
def accounts(request: pytest.FixtureRequest, tmp_path: Path) -> Accounts:
    return FileAccounts(tmp_path) if request.param == "files" else MemoryAccounts()


def test_a_limit_belongs_to_an_account_and_a_model(accounts: Accounts) -> None:
    """Nobody else is held back by it."""
    accounts.learn("work", "large", MET)
    assert accounts.limit("work", "large") == MET
    assert [accounts.limit(*who) for who in (("work", "small"), ("work", None), ("home", "large"))] == [None] * 3


def test_the_last_word_on_a_limit_counts(accounts: Accounts) -> None:
    """Met again it lasts longer; and a good answer ends it."""
    accounts.learn("work", None, MET)
    accounts.learn("work", None, LATER)
    assert accounts.limit("work", None) == LATER
    accounts.learn("work", None, None)
    accounts.learn("work", None, None)
    assert accounts.limit("work", None) is None


def test_there_are_as_many_seats_as_said(accounts: Accounts) -> None:
    """One that is given back can be taken again; other accounts have their own."""
    first, second = accounts.take_seat("work", 2), accounts.take_seat("work", 2)
    assert first is not None
    assert second is not None
    assert accounts.take_seat("work", 2) is None
    other = accounts.take_seat("home", 1)
    assert other is not None
    other.leave()
    first.leave()
    third = accounts.take_seat("work", 2)
    assert third is not None
    second.leave()
    third.leave()


HOLD = """
import sys
from pathlib import Path
from storyloop.world.accounts import FileAccounts
print(FileAccounts(Path(sys.argv[1])).take_seat("work", 1) is not None, flush=True)
sys.stdin.read()
"""


def test_a_seat_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    """The kernel gives it back; nobody has to clean up."""
    accounts = FileAccounts(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert accounts.take_seat("work", 1) is None
        holder.kill()
    seat = accounts.take_seat("work", 1)
    assert seat is not None
    seat.leave()


def test_a_limit_is_for_its_user_alone(tmp_path: Path) -> None:
    """What is kept names nobody's account, and nobody else may read it."""
    FileAccounts(tmp_path).learn("me@example.org", "large", MET)
    (kept,) = tmp_path.rglob("*.json")
    assert "example" not in str(kept.relative_to(tmp_path))
    assert (tmp_path / "accounts").stat().st_mode & 0o077 == 0

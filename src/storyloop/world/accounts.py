"""Accounts: what the runs of this machine share of agents' accounts, as small files below the state directory.

A limit is one file for each account and model, replaced whole, so that the last who met it is believed. A seat is a
kernel lock on one of an account's numbered files, given back by the kernel when its last holder dies: the supervisor of
a call inherits it, so the agent of a run that died keeps its seat for as long as it goes on.
"""

import fcntl
import os
import threading
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import msgspec

from storyloop.ports.agents import Limited, Seat


class FileAccounts:
    """The `Accounts` port below a directory that all runs of a user know."""

    def __init__(self, home: Path) -> None:
        self._home = home / "accounts"

    def limit(self, account: str, model: str | None) -> Limited | None:
        try:
            return msgspec.json.decode(self._limit_file(account, model).read_bytes(), type=Limited)
        except (FileNotFoundError, msgspec.DecodeError):  # a newer version's file says nothing to us
            return None

    def learn(self, account: str, model: str | None, limited: Limited | None) -> None:
        file = self._limit_file(account, model)
        if limited is None:
            file.unlink(missing_ok=True)
            return
        self._make(file.parent)
        new = file.with_name(f"{file.name}.{threading.get_native_id()}")
        new.write_bytes(msgspec.json.encode(limited))
        new.replace(file)

    def take_seat(self, account: str, seats: int) -> Seat | None:
        place = self._place(account)
        self._make(place)
        for number in range(1, seats + 1):
            seat = os.open(place / f"seat-{number}", os.O_RDWR | os.O_CREAT, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Seat(lambda seat=seat: os.close(seat), seat)
            os.close(seat)
        return None

    def _make(self, place: Path) -> None:
        for directory in (self._home, place):  # `parents` would make those between for everybody to read
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _place(self, account: str) -> Path:
        return self._home / sha256(account.encode()).hexdigest()[:16]

    def _limit_file(self, account: str, model: str | None) -> Path:
        return self._place(account) / f"limit-{sha256((model or '').encode()).hexdigest()[:16]}.json"


class MemoryAccounts:
    """The `Accounts` port for one process."""

    def __init__(self) -> None:
        self._limits: dict[tuple[str, str | None], Limited | None] = {}
        self._taken: dict[str, set[object]] = {}

    def limit(self, account: str, model: str | None) -> Limited | None:
        return self._limits.get((account, model))

    def learn(self, account: str, model: str | None, limited: Limited | None) -> None:
        self._limits[account, model] = limited

    def take_seat(self, account: str, seats: int) -> Seat | None:
        taken = self._taken.setdefault(account, set())
        if len(taken) >= seats:
            return None
        seat = object()
        taken.add(seat)
        return Seat(lambda: taken.discard(seat))

    def free_seats(self) -> None:
        """The process that held them has died."""
        self._taken.clear()

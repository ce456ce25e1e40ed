"""The Clock's contract: UTC, never backwards by itself, and a wait that ends at its moment or when it is told to."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from storyloop.ports.clock import Clock
from storyloop.world.clock import HandClock, RealClock

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["real", "by hand"])
def clock(request: pytest.FixtureRequest) -> Clock:
    return RealClock() if request.param == "real" else HandClock(NOON)


def test_a_moment_is_in_utc_and_no_later_one_comes_before_it(clock: Clock) -> None:
    """So that moments can be compared and stored."""
    moments = [clock.now() for _ in range(3)]
    assert [moment.utcoffset() for moment in moments] == [timedelta(0)] * 3
    assert moments == sorted(moments)


@pytest.mark.parametrize("seconds", [0.05, 0.0, -3600.0], ids=["soon", "now", "long ago"])
def test_a_wait_ends_when_its_moment_has_come(clock: Clock, seconds: float) -> None:
    """Afterwards it is that moment or later; one that has passed is not waited for."""
    moment = clock.now() + timedelta(seconds=seconds)
    assert clock.wait_until(moment, threading.Event()) is True
    assert clock.now() >= moment


def test_a_stop_that_came_before_the_wait_ends_it_at_once(clock: Clock) -> None:
    """Nobody who stops waits first."""
    stop = threading.Event()
    stop.set()
    began = clock.now()
    assert clock.wait_until(began + timedelta(hours=1), stop) is False
    assert clock.now() - began < timedelta(hours=1)


def test_a_stop_ends_a_wait_that_has_begun() -> None:
    """Not at the end of it."""
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    assert RealClock().wait_until(RealClock().now() + timedelta(hours=1), stop) is False


def test_a_machine_that_slept_through_the_moment_does_not_wait_on() -> None:
    """The wall clock jumps an hour while a wait of an hour has just begun: it is over."""

    class Slept(RealClock):
        asked = 0

        def now(self) -> datetime:
            self.asked += 1
            return NOON if self.asked == 1 else NOON + timedelta(hours=1)

    assert Slept().wait_until(NOON + timedelta(hours=1), threading.Event()) is True


def test_a_clock_that_was_set_back_makes_a_wait_longer_not_endless() -> None:
    """It is the wall clock's moment that is waited for, so a second look counts."""

    class SetBack(RealClock):
        moments = (NOON, NOON - timedelta(seconds=60), NOON + timedelta(seconds=1))
        asked = -1

        def now(self) -> datetime:
            self.asked += 1
            return self.moments[self.asked]

    assert SetBack().wait_until(NOON + timedelta(seconds=0.01), threading.Event()) is True


def test_a_clock_wound_by_hand_goes_by_its_step_and_jumps_over_waits() -> None:
    """The same moments each time, so that tests can write them down."""
    clock = HandClock(NOON, step=0.5)
    assert [clock.now(), clock.now()] == [NOON, NOON + timedelta(seconds=0.5)]
    clock.wait_until(NOON + timedelta(hours=5), threading.Event())
    assert clock.now() == NOON + timedelta(hours=5)
    clock.wait_until(NOON, threading.Event())
    assert clock.now() == NOON + timedelta(hours=5, seconds=0.5)

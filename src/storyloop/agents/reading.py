"""Reading a spool by a dialect: the whole of it for what a turn came to, its newest lines for what goes on now."""

from typing import BinaryIO

from storyloop.agents.stream import Dialect, Seen, Turn

MAX_LINE = 1 << 26  # bytes; of a longer line the rest is passed over, and what is left of it is no event
_WINDOW = 1 << 16  # bytes that a glance reads, or that are read at once where lines do not matter


def read_stream(spool: BinaryIO, dialect: Dialect) -> Turn:
    """What the whole spool came to. Of the spool no more than one line is held at any time."""
    spool.seek(0)
    feed, readline = dialect.feed, spool.readline
    while line := readline(MAX_LINE) if dialect.by_line else spool.read(_WINDOW):
        feed(line)
        while len(line) == MAX_LINE and line[-1:] != b"\n":
            line = readline(MAX_LINE)
    return dialect.turn()


def glance(spool: BinaryIO, dialect: Dialect, since: int) -> tuple[Seen | None, int]:
    """The newest thing seen in the lines that ended after byte `since`, and the byte to look from next time.

    Reads a fixed number of bytes, however much was added: a line longer than that is not seen. The dialect should
    be a fresh one, as it is shown lines out of their order.
    """
    end = spool.seek(0, 2)
    start = max(since, end - _WINDOW)
    spool.seek(start)
    fresh = spool.read(end - start)
    whole, newline, _ = fresh.rpartition(b"\n")
    if not newline:
        return None, since
    lines = whole.split(b"\n")
    if start > since:
        del lines[0]  # its beginning lies outside of the window
    for line in reversed(lines):
        if line.strip() and (shown := [*dialect.feed(line)]):
            return shown[-1], start + len(whole) + 1
    return None, start + len(whole) + 1

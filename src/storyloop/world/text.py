"""Text from elsewhere: output of commands and agents, made fit for a person's terminal or a prompt."""

import re
import signal

# Escape sequences: CSI, OSC and its kin up to their end (or to the end of the line), and the two-byte rest.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def readable(text: str | bytes) -> str:
    """The text without escape sequences and control characters.

    Bytes that are not UTF-8 are replaced; of a line that was overwritten (a progress bar), its last state stays.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    lines = _ESCAPES.sub("", text).split("\n")
    return _CONTROLS.sub("", "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines))


def signal_name(number: int) -> str:
    """SIGKILL for 9; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""JSON as it is printed: text from elsewhere in it does not rule a terminal, and is the same text when it is read."""

import re

import msgspec

_RAW = re.compile(r"[\x7f-\x9f]")  # the controls that JSON need not escape


def json_line(value: object) -> bytes:
    """The value in one line."""
    text = msgspec.json.encode(value).decode()
    return _RAW.sub(lambda control: f"\\u{ord(control[0]):04x}", text).encode()

"""Branch names: what git accepts as one, and a name for any title.

The rules are those of `git check-ref-format --branch`, kept here without a process so that a spec is refused
before anything is done with it. Two are ours: `@`, which every git command reads as HEAD, and a length that
still fits into a file name with what git appends to it.
"""

import re
import unicodedata

_FAULTS = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (r"\A\Z", "it is empty"),
        (r"[\x00-\x20\x7f\ud800-\udfff~^:?*\[\\]", "it contains a space or one of ~^:?*[\\"),
        (r"\.\.|@\{", "it contains .. or @{"),
        (r"\A/|/\Z|//", "it begins or ends with / or contains //"),
        (r"(?:\A|/)\.|\.\Z", "a part of it begins with a dot, or it ends with one"),
        (r"\.lock(?:/|\Z)", "a part of it ends with .lock"),
        (r"\A-", "it begins with -"),
        (r"\A(?:HEAD|@)\Z", "git reads it as the current commit"),
    )
)
_LONGEST_PART = 200  # bytes


def branch_fault(name: str) -> str | None:
    """Why git (or we) would refuse a branch of this name; None when it is good."""
    for pattern, why in _FAULTS:
        if pattern.search(name):
            return why
    if any(len(part.encode()) > _LONGEST_PART for part in name.split("/")):
        return f"a part of it is longer than {_LONGEST_PART} bytes"
    return None


def slug(text: str) -> str:
    """The text as lower-case words joined by `-`, at most 50 characters.

    ASCII where anything of it can be written so; otherwise its own letters; empty when it has none.
    """
    folded = unicodedata.normalize("NFKD", text.casefold()).lower()
    words = re.findall(r"[a-z0-9]+", folded.encode("ascii", "ignore").decode())
    if not words:
        words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", folded))
    return "-".join(words)[:50].rstrip("-")


def default_branch(title: str) -> str:
    """The branch of a spec that names none."""
    return f"storyloop/{slug(title) or 'spec'}"

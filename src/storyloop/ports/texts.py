"""Texts: what is written for agents and people, what is read out of their files, and what no text may hold."""

from collections.abc import Callable, Mapping
from typing import Protocol

from storyloop.core.telling import PromptValues
from storyloop.ports.repository import Place

SymbolsReader = Callable[[bytes], tuple[str, ...]]  # a file's content -> the names that it defines, a few


class Secrets(Protocol):
    """Knows secrets when it sees them."""

    def text(self, text: str) -> str:
        """The text without its secrets; the very same object when it has none."""
        ...

    def find(self, data: bytes) -> list[str]:
        """The names of the secrets in these bytes, each once."""
        ...

    def knowing(self, environment: Mapping[str, str]) -> "Secrets":
        """One that knows the secrets of this environment, too."""
        ...


class Prompts(Protocol):
    """Renders what an agent is told."""

    def render(self, values: PromptValues) -> str:
        """The prompt of one call."""
        ...

    def handover(self, values: PromptValues) -> str:
        """The text of `.storyloop/handover.md`."""
        ...

    def background(self, values: PromptValues) -> str:
        """The text of `.storyloop/background.md`, which the prompt refers to; "" while there is nothing to tell."""
        ...


class Notifier(Protocol):
    """Sends word to whoever is not watching."""

    def send(self, title: str, text: str) -> str | None:
        """What went wrong, as a sentence that names no address; None when all went well."""
        ...


class Papers(Protocol):
    """The files that we write for agents and people to read, outside of every tree."""

    def write_handover(self, place: Place, text: str) -> None:
        """Put the handover into the worktree's `.storyloop`, replacing an older one."""
        ...

    def remove_handover(self, place: Place) -> None:
        """Take it away again; there need not be one."""
        ...

    def save_spec(self, place: Place, data: bytes) -> None:
        """Keep the run's spec in its directory, in the place of an older one."""
        ...

    def save_report(self, place: Place, text: str) -> str:
        """Keep the run's report in its directory; the path comes back."""
        ...

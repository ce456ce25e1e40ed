"""The notifier over Apprise, which knows some hundred services by URL. Imported when the first word is sent.

URLs hold secrets: no sentence here names more of one than its scheme, or the variable that it stands in.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any


class AppriseNotifier:
    """Sends to every address; `$NAME` stands for what that variable holds."""

    def __init__(self, urls: Sequence[str], environ: Mapping[str, str]) -> None:
        self._urls = [(_named(url), environ.get(url[1:], "") if url.startswith("$") else url) for url in urls]

    def send(self, title: str, text: str) -> str | None:
        try:
            import apprise
        except ImportError:
            return "Apprise is not installed. `pip install 'storyloop[notify]'` brings it."
        logging.getLogger("apprise").disabled = True  # it would print addresses on our stderr
        failed = [name for name, url in self._urls if not _sent(apprise, url, title, text)]
        return f"{', '.join(failed)} could not be reached, or is no address." if failed else None


def _sent(apprise: Any, url: str, title: str, text: str) -> bool:  # the edge to a library without types
    # One service at a time and in our thread: Apprise's own pool would keep the process until each has answered.
    service = apprise.Apprise.instantiate(url) if url else None
    return service is not None and bool(service.notify(title=title, body=text))


def _named(url: str) -> str:
    return url if url.startswith("$") else url.partition("://")[0]


class SilentNotifier:
    """Sends nothing, and all goes well."""

    def send(self, title: str, text: str) -> str | None:  # noqa: ARG002 - the protocol's
        return None

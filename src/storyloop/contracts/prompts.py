"""Prompts: what agents are told, rendered from templates that ship as files.

Everything that did not come from us is material: what the spec says, what an agent wrote, what a command printed.
It is fenced so that it cannot end its own fence and speak with our voice, it is stripped of what only a terminal
understands, and it is bounded. The form that shows how a result looks is never itself a valid result, so an agent
that repeats its prompt has not answered it.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from storyloop.contracts.codec import schema_path
from storyloop.core.errand import Mode
from storyloop.core.policy import Drain
from storyloop.ports import PromptValues
from storyloop.world.text import readable

if TYPE_CHECKING:  # a run that asks no agent never pays for jinja2
    from jinja2.sandbox import SandboxedEnvironment

_TEMPLATES = Path(__file__).parent / "templates"


def load_templates() -> dict[str, str]:
    """The source of every template, by name: the one place they come from."""
    return {path.stem: path.read_text(encoding="utf-8") for path in _TEMPLATES.glob("*.j2")}


class TemplatePrompts:
    """The `Prompts` port, over the templates."""

    def render(self, values: PromptValues) -> str:
        """The prompt of one call."""
        match values.mode:
            case Mode.FORMAT_RETRY:
                return _rendered("format-retry", values)
            case Mode.SAME_AGENT_RETRY:
                return _rendered("same-agent-retry", values)
            case Mode.FRESH | Mode.CONTINUATION:
                return _rendered(_task(values), values)

    def handover(self, values: PromptValues) -> str:
        """The text of `.storyloop/handover.md`."""
        return _rendered("handover", values)


def _task(values: PromptValues) -> str:
    """The template that asks for the work itself, which a retry repeats."""
    if values.drain is Drain.COMMIT:
        return "commit"
    return "story" if values.handover is None else "story-continuation"


def _rendered(template: str, values: PromptValues) -> str:
    verified = (criterion.verify for criterion in values.story.acceptance_criteria)
    commands = [*values.checks.values(), *(verify for verify in verified if verify)]
    source = _environment().get_template(template)
    return source.render(
        msgspec.structs.asdict(values),
        task=_task(values),
        commands=dict.fromkeys(commands),
        schema=_schema(values.drain),
    )


@cache
def _environment() -> "SandboxedEnvironment":
    from jinja2 import DictLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=DictLoader(load_templates()),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are no HTML; fences do the work
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters = {"fenced": fenced, "line": _line, "head": _head, "tail": _tail, "length": len}
    return environment


@cache
def _schema(drain: Drain) -> str:
    """The schema as a model needs it: without declaration and comments."""
    text = schema_path(drain).read_text(encoding="utf-8")
    return re.sub(r"<\?.*?\?>|<!--.*?-->", "", text, flags=re.DOTALL).strip()


def fenced(text: str) -> str:
    """The text between two fences that are longer than any that it holds itself."""
    text = readable(text).strip("\n")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _line(text: str, limit: int = 200) -> str:
    """The text as a part of a line of ours."""
    return " ".join(readable(text).replace("`", "'").split())[:limit]


def _head(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}\n[{len(text) - limit} characters left out]"


def _tail(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"[{len(text) - limit} characters left out]\n{text[-limit:]}"

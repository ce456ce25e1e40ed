"""Prompts: what agents are told, rendered from templates that ship as files and that a user may override.

Everything that did not come from us is material: what the spec says, what an agent wrote, what a command printed.
It is fenced so that it cannot end its own fence and speak with our voice, it is stripped of what only a terminal
understands, and it is bounded. The form that shows how a result looks is never itself a valid result, so an agent
that repeats its prompt has not answered it.

An override is a jinja2 template of the same name, sandboxed. It may include ours (`{% include "_answer" %}`) and sees
the fields of `PromptValues`; what comes from elsewhere it must pass through `fenced` or, within a line, `line`.
"""

import re
import traceback
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from storyloop.contracts.codec import schema_path
from storyloop.core.artifacts import Issue, Question, Severity
from storyloop.core.errand import Mode
from storyloop.core.errors import UserError
from storyloop.core.policy import Drain, Policy, Way
from storyloop.core.progress import Reply
from storyloop.core.spec import Criterion, Story
from storyloop.core.telling import Handover, PromptValues
from storyloop.core.words import DevelopmentStatus
from storyloop.world.text import readable

if TYPE_CHECKING:  # a run that asks no agent never pays for jinja2
    from jinja2.sandbox import SandboxedEnvironment

OVERRIDES = "storyloop-prompts"  # the directory of the user's checkout: <name>.j2 takes the place of our <name>
_MEND = "Mend it there, or delete the file to have ours again; a run that began with it: `storyloop resume --prompts`."
_MAX_TEMPLATE = 50_000  # characters
_TEMPLATES = Path(__file__).parent / "templates"


def load_templates() -> dict[str, str]:
    """The source of every template, by name: the one place they come from."""
    return {path.stem: path.read_text(encoding="utf-8") for path in _TEMPLATES.glob("*.j2")}


def read_overrides(checkout: Path) -> dict[str, str]:
    """The user's own templates, by name, checked. Raises `UserError` where one cannot be used."""
    sources: dict[str, str] = {}
    for path in sorted(Path(checkout, OVERRIDES).glob("*.j2")):
        if not path.is_file():  # opening a pipe would wait for whoever writes to it
            raise UserError(f"{_file(path.stem)} is not a file.", "Put a file there, or nothing.")
        try:
            with path.open(encoding="utf-8") as file:
                sources[path.stem] = file.read(_MAX_TEMPLATE + 1)
        except (OSError, UnicodeError) as error:
            raise UserError(f"{_file(path.stem)} cannot be read: {error}.", "It must be a text in UTF-8.") from error
    TemplatePrompts(sources).check()
    return sources


class TemplatePrompts:
    """The `Prompts` port, over the templates; `overrides` are sources by name, in the place of ours."""

    def __init__(self, overrides: Mapping[str, str] | None = None) -> None:
        self._overrides = dict(overrides or {})
        self._sources = tuple(sorted(self._overrides.items()))

    def render(self, values: PromptValues) -> str:
        """The prompt of one call."""
        match values.mode:
            case Mode.FORMAT_RETRY:
                return self._rendered("format-retry", values)
            case Mode.SAME_AGENT_RETRY:
                return self._rendered("same-agent-retry", values)
            case Mode.FRESH | Mode.CONTINUATION:
                return self._rendered(_task(values), values)

    def handover(self, values: PromptValues) -> str:
        """The text of `.storyloop/handover.md`."""
        return self._rendered("handover", values)

    def background(self, values: PromptValues) -> str:
        """The text of `.storyloop/background.md`; "" while there is nothing to tell."""
        return self._rendered("background", values) if values.passed or values.knowledge else ""

    def interview(self, file: Path, policy: Policy) -> str:
        """What opens the session in which a user talks a spec with an agent, who is to write it to this file."""
        told = {
            "file": file,
            "is_there": file.exists(),
            "checks": {name: check.run for name, check in policy.checks.items()},
            "require": policy.require,
        }
        return self._filled("spec-new", told)

    def improving(self, branch: str, earlier: str, policy: Policy) -> str:
        """What opens the session in which a user improves a branch with an agent that knows what was learnt on it."""
        checks = {name: check.run for name, check in policy.checks.items()}
        return self._filled("improve", {"branch": branch, "earlier": earlier, "checks": checks})

    def check(self) -> None:
        """Raise `UserError` where an override is unknown, fails, or leaves out where the result belongs.

        Every prompt is rendered with samples: once with all that may be told, once with no more than there must be.
        """
        known = load_templates()
        for name, source in self._overrides.items():
            if name not in known:
                near = get_close_matches(name, known, n=1) or ["story"]
                raise UserError(f"{_file(name)} takes the place of nothing.", f"Perhaps you mean {near[0]}.j2.")
            if len(source) > _MAX_TEMPLATE:
                cure = "Shorten it: it is sent with every call."
                raise UserError(f"{_file(name)} has more than {_MAX_TEMPLATE:,} characters.", cure)
        for values in _samples() if self._overrides else ():
            if values.handover:
                self.handover(values)
                self.background(values)
            if values.artifact not in self.render(values):
                where = f"the prompt of {values.drain} ({values.mode}), as {OVERRIDES} has it"
                cure = 'Put {% include "_answer" %} at the end of its template.'
                raise UserError(f"Nothing says where the result belongs in {where}.", cure)

    def _rendered(self, template: str, values: PromptValues) -> str:
        stories = (values.story,) if values.story else values.stories
        verified = (criterion.verify for story in stories for criterion in story.acceptance_criteria)
        commands = [*values.checks.values(), *(verify for verify in verified if verify)]
        told = msgspec.structs.asdict(values) | {
            "task": _task(values),
            "commands": dict.fromkeys(commands),
            "schema": _schema(values.drain),
        }
        return self._filled(template, told)

    def _filled(self, template: str, told: Mapping[str, object]) -> str:
        from jinja2 import TemplateError

        try:
            return _environment(self._sources).get_template(template).render(told)
        except (
            TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            at = self._place(error)
            if at is None:
                raise  # it is ours that failed
            raise UserError(f"{_file(at[0])} cannot be used: line {at[1]}, {_fault(error)}.", _MEND) from error

    def _place(self, error: Exception) -> tuple[str, int] | None:
        """The override that failed, and the line in it."""
        from jinja2 import TemplateSyntaxError

        frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, TemplateSyntaxError):
            frames.append((error.name or "", error.lineno))
        return next((at for at in reversed(frames) if at[0] in self._overrides), None)


def _file(name: str) -> str:
    return f"The prompt template {OVERRIDES}/{name}.j2"


def _fault(error: Exception) -> str:
    from jinja2 import TemplateNotFound

    return f"there is no template {error}" if isinstance(error, TemplateNotFound) else str(error).rstrip(".")


def _task(values: PromptValues) -> str:
    """The template that asks for the work itself, which a retry repeats."""
    if values.drain is not Drain.STORY:
        return values.drain.value
    return "story" if values.handover is None else "story-continuation"


@cache
def _environment(sources: tuple[tuple[str, str], ...]) -> "SandboxedEnvironment":
    from jinja2 import FunctionLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    known = load_templates() | dict(sources)
    environment: Any = ImmutableSandboxedEnvironment(  # the edge to jinja2: its filters are of no known type
        # The name stands for the file: tracebacks then tell which template failed.
        loader=FunctionLoader(lambda name: (known[name], name, None) if name in known else None),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are no HTML; fences do the work
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(fenced=fenced, line=_line, head=_head, tail=_tail)
    return environment


@cache
def _schema(drain: Drain) -> str:
    """The schema as a model needs it: without declaration and comments, indented by little."""
    text = schema_path(drain).read_text(encoding="utf-8")
    bare = re.sub(r"<\?.*?\?>|<!--.*?-->", "", text, flags=re.DOTALL).strip()
    return re.sub(r"^ +", lambda indent: indent[0][::2], bare, flags=re.MULTILINE)


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


# --- samples, for the check of overrides ----------------------------------------------------------------------

_STORY = Story(id="US-001", title="A title", priority=1, acceptance_criteria=(Criterion("It works", "true"),))
_OF_A_STORY = (Drain.STORY, Drain.ANALYSIS, Drain.COMMIT, Drain.CONFLICT)


def _samples() -> Iterator[PromptValues]:
    for drain, mode in product(Drain, Mode):
        story = _STORY if drain in _OF_A_STORY else None
        bare = PromptValues(drain=drain, mode=mode, project="A project", artifact="/a/result.xml", story=story)
        yield bare
        yield msgspec.structs.replace(
            bare,
            checks={"test": "true"},
            passed=(_STORY,),
            summaries={_STORY.id: "text"},
            knowledge="text",
            excerpt="text",
            attempt=1,
            attempts=2,
            way=Way.PLAN_FIRST,
            handover=Handover(status=DevelopmentStatus.PARTIAL, summary="text", next_steps="text", files=("a",)),
            repeated=5,
            replies=(Reply(Question(text="text", default="text"), "text", by_human=True),),
            questions=1,
            hint="text",
            earlier="text",
            retry_reason="text",
            errors="text",
            invalid_text="text",
            diff_stat="text",
            spec_text="text",
            description="text",
            stories=(_STORY,),
            diff="text",
            base="text",
            landed="text",
            since="text",
            clashes=("text",),
            evidence=("text",),
            suspicions=("text",),
            issues=(Issue(severity=Severity.MAJOR, text="text", file="a", line=1, story=_STORY.id),),
            account="text",
        )

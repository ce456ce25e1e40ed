"""Telling: the values that prompts and handovers are made of; how they are worded is the templates' matter."""

import msgspec

from storyloop.core.artifacts import Issue
from storyloop.core.errand import Mode
from storyloop.core.policy import Drain, Require, Way
from storyloop.core.progress import Concern, Reply
from storyloop.core.spec import Story
from storyloop.core.stages import Red
from storyloop.core.words import DevelopmentStatus, FixStatus


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """What the next attempt is told of the last one: the agent's word, and what we measured."""

    status: DevelopmentStatus | FixStatus
    summary: str
    next_steps: str | None = None
    files: tuple[str, ...] = ()
    red: tuple[Red, ...] = ()


class PromptValues(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a prompt may be made of; which of it is told follows from the drain and the mode."""

    drain: Drain
    mode: Mode
    project: str
    artifact: str  # absolute path of where the artifact belongs
    story: Story | None = None  # None where the whole run is asked about
    checks: dict[str, str] = {}  # name -> the command that we run after the call
    passed: tuple[Story, ...] = ()  # what passed before,
    summaries: dict[str, str] = {}  # and the work summary of each, by the story's id
    knowledge: str = ""  # rendered, within its budget: with these, the file that a prompt refers to,
    excerpt: str = ""  # and the little of it that stands in the prompt itself
    attempt: int = 0
    attempts: int = 1  # how many there may be
    way: Way = Way.CONTINUE  # how this attempt is to be made
    handover: Handover | None = None  # of a continuation, and for the words of a commit
    replies: tuple[Reply, ...] = ()  # to what was asked about this story
    questions: int = 0  # how many more may be asked
    repeated: int = 0  # so many attempts in a row came to the same result; 0 unless that is a loop
    hint: str = ""  # why this story is taken up again
    earlier: str = ""  # what earlier runs on this branch came to and left open
    retry_reason: str = ""  # why the same agent is asked again
    session: str | None = None  # the agent still knows what it was told
    errors: str = ""  # what was wrong with the artifact,
    invalid_text: str = ""  # and what it said
    diff_stat: str = ""
    spec_text: str = ""  # the free-form spec that a plan is made of,
    require: Require = Require.CHECKS  # and what of its stories must be provable
    description: str = ""  # the spec's, where the whole run is asked about,
    stories: tuple[Story, ...] = ()  # and its stories that this is about; `summaries` may say what was done in each
    diff: str = ""  # the change that is reviewed or judged
    base: str = ""  # the commit that it begins at
    landed: str = ""  # what other stories have changed since this one began, where its work is on top of that,
    since: str = ""  # the commit at which it began,
    clashes: tuple[str, ...] = ()  # and the files in which both sides of a clash stand
    evidence: tuple[str, ...] = ()  # what we measured, a line each
    suspicions: tuple[str, ...] = ()  # what we noticed in the change (bent checks, for example), a line each
    concerns: tuple[Concern, ...] = ()  # what is to be judged of what was said of a pull request
    issues: tuple[Issue, ...] = ()  # what reviews found and is open,
    account: str = ""  # and what was said to have been done about it
    form: str = ""  # the repository's template for the text of a pull request

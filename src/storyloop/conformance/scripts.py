"""Scripts: the scenarios that the matrix plays and the recorder records, by name."""

from storyloop.conformance.scenario import (
    ARTIFACT,
    Break,
    EditFile,
    ModelTurn,
    Refusal,
    Scenario,
    Shell,
    WriteFile,
    plain,
)

WRITTEN = "notes.txt"  # what a turn of `write` leaves in the worktree
CONTENT = "hello edited model\n"
SECOND_ANSWER = "I still know what I wrote."

RESULT = (
    "<development-result><status>completed</status><summary>The notes are written.</summary></development-result>\n"
)
WRITE = (
    ModelTurn(
        thinks="The user wants notes.",
        says="I write the notes.",
        does=WriteFile(WRITTEN, "hello scripted model\n"),
    ),
    ModelTurn(says="I put a word right.", does=EditFile(WRITTEN, "scripted", "edited")),
    ModelTurn(does=Shell(f"cat {WRITTEN}")),
    ModelTurn(says="Now the result.", does=WriteFile(ARTIFACT, RESULT)),
    ModelTurn(says="The notes are written."),
)
_TALK = ModelTurn(thinks="This needs some words.", says="These are a few words, told in several pieces. " * 8)


def _refused(status: int, message: str, **headers: str) -> Scenario:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return plain(ModelTurn(fault=Refusal(status, message, named)))


def _broken(fault: Break) -> Scenario:
    return plain(ModelTurn(thinks=_TALK.thinks, says=_TALK.says, fault=fault))


_LONG = "".join(f"Line {number} of an answer that has no end, and nothing else to say.\n" for number in range(500))
RUNNING = "running.txt"  # what a turn of `busy` leaves as soon as its command runs, which ends only when it is ended
_BUSY = ModelTurn(says="This takes long.", does=Shell(f"(tail -f /dev/null & echo running >{RUNNING}; wait)"))

SCRIPTS: dict[str, Scenario] = {
    "write": plain(*WRITE),
    "resume": plain(ModelTurn(says=SECOND_ANSWER, does=WriteFile(ARTIFACT, RESULT)), ModelTurn(says=SECOND_ANSWER)),
    "busy": plain(_BUSY),
    "err401": _refused(401, "Incorrect API key provided."),
    "err429": _refused(429, "Too many requests; a moment, please.", retry_after="1"),
    "err429long": _refused(429, "The usage limit is reached.", retry_after="3600"),
    "err500": _refused(500, "The model stumbled."),
    "err529": _refused(529, "The model is overloaded."),
    "context": _refused(400, "prompt is too long: 250000 tokens > 200000 maximum"),
    "hang": _broken(Break.HANG),
    "stall": _broken(Break.STALL),
    "cut": _broken(Break.CUT),
    "garbage": _broken(Break.GARBAGE),
    "error-event": _broken(Break.ERROR_EVENT),
    "huge": plain(ModelTurn(says=_LONG * (10_000_000 // len(_LONG)))),
    "denied": plain(
        ModelTurn(says="I write beside the place.", does=WriteFile("../beside.txt", "Not here.\n")),
        ModelTurn(says="I was not allowed to."),
    ),
}

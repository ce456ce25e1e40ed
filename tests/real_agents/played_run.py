"""Plays `storyloop run` where only loopback exists, the agent's model being a scripted one: NAME PLACE [acp].

It leaves what a user has: a home, a repository with a run's branch, and the journal.
"""

import os
import subprocess
import sys
from pathlib import Path

import tomlkit

from storyloop.agents.profile import filled
from storyloop.agents.profiles import PROFILES
from storyloop.conformance.alone import is_alone, raise_loopback
from storyloop.conformance.scenario import ARTIFACT, EditFile, ModelTurn, Part, ReadFile, Scenario, WriteFile
from storyloop.conformance.server import MODEL, serving

SPEC = """\
# Two words
## Branch
feature/words
## User Stories
### US-001: The first word
**Acceptance Criteria:**
- [ ] one.txt says right
  verify: `grep -qx right one.txt`
### US-002: The second word
**Acceptance Criteria:**
- [ ] two.txt is there
  verify: `test -s two.txt`
"""


def done(summary: str) -> ModelTurn:
    """The artifact of a story that is called completed."""
    result = "<development-result><status>completed</status><summary>{}</summary></development-result>\n"
    return ModelTurn(does=WriteFile(ARTIFACT, result.format(summary)))


# The first story is called completed when it is not: our check is red, and a continuation mends it.
SCRIPT = Scenario(
    (
        Part(
            (
                ModelTurn(thinks="A word.", says="I write it.", does=WriteFile("one.txt", "wrong\n")),
                done("Said too early."),
                ModelTurn(says="Done."),
            ),
            owed=r"^US-001-\d+-story-0-",
        ),
        Part(
            (
                ModelTurn(does=ReadFile("one.txt")),
                ModelTurn(says="The word is wrong.", does=EditFile("one.txt", "wrong", "right")),
                done("The word is right."),
                ModelTurn(says="Done."),
            ),
            owed=r"^US-001-\d+-story-1-",
        ),
        Part((ModelTurn(does=WriteFile("two.txt", "two\n")), done("Two."), ModelTurn(says="Done.")), owed=r"^US-002-"),
        Part(
            (ModelTurn(does=WriteFile(ARTIFACT, "<issues><none/></issues>\n")), ModelTurn(says="Done.")), owed="review"
        ),
    )
)


def main(name: str, place: Path, kind: str | None = None) -> int:
    """What `storyloop run` exits with."""
    raise_loopback()
    assert is_alone()
    offline = PROFILES[name].offline
    assert offline is not None
    repository = place / "repository"
    with serving({"run": SCRIPT}) as model:
        words = {"base": model.base("run"), "model": MODEL}
        for path, text in offline.files.items():
            file = Path(os.environ["HOME"], path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(filled(text, words))
        env = {key: filled(text, words) for key, text in offline.env.items()}
        settings = {
            "agents": {name: {**({"kind": kind} if kind else {}), "model": filled(offline.model, words), "env": env}},
            "chains": {"default": [name]},
            "limits": {"call_timeout": "60s", "calls_per_errand": 4, "same_agent_retries": 1},
        }
        (repository / "storyloop.toml").write_text(tomlkit.dumps(settings))
        (place / "spec.md").write_text(SPEC)
        command = [sys.executable, "-m", "storyloop", "run", str(place / "spec.md"), "-v"]
        return subprocess.run(command, cwd=repository, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))

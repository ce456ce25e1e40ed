"""A small world for benchmarks: a repository, an agent that answers at once, a spec of any number of stories."""

import os
import subprocess
import sys
from pathlib import Path

AGENT = """#!/bin/sh
printf 'done\\n' > "$STORYLOOP_STORY.txt"
printf '<development-result><status>completed</status><summary>One file.</summary></development-result>' \\
    > "$STORYLOOP_ARTIFACT"
"""
CONFIG = """[agents.quick]
kind = "command"
command = ["./agent.sh"]

[chains]
default = ["quick"]

[checks]
trivial = "true"

[review]
enabled = false
"""


class World:
    """A repository with its home; everything below one directory."""

    def __init__(self, place: Path) -> None:
        self.repository, self.home = place / "repo", place / "home"
        self.repository.mkdir(parents=True)
        self.home.mkdir()
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        self.env = kept | {"HOME": str(self.home), "STORYLOOP_HOME": str(place / "state"), "GIT_CONFIG_NOSYSTEM": "1"}
        (self.repository / "agent.sh").write_text(AGENT)
        (self.repository / "agent.sh").chmod(0o755)
        (self.repository / "storyloop.toml").write_text(CONFIG)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Bench")
        self.git("config", "user.email", "bench@example.invalid")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=base")

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.repository, env=self.env, check=True, capture_output=True)

    def spec(self, name: str, stories: int) -> Path:
        """A spec whose stories each want a file of their own."""
        parts = [f"# {name}", "## User Stories"]
        for number in range(1, stories + 1):
            parts += [f"### S-{number}: File {number}", "**Acceptance Criteria:**", "- [ ] The file is there"]
        path = self.repository.parent / f"{name}.md"
        path.write_text("\n".join(parts) + "\n")
        return path

    def storyloop(self, *words: str) -> list[str]:
        """The command line of the program with these words."""
        return [str(Path(sys.executable).with_name("storyloop")), *words]

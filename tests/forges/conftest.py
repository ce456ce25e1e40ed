"""The fixtures of the forge suites, and the way to the kits that lie beside them and above, in `tests`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from forgekit import gh_world, github_world, glab_world, memory_world, repository, twin_world, world  # noqa: E402

__all__ = ["gh_world", "github_world", "glab_world", "memory_world", "repository", "twin_world", "world"]

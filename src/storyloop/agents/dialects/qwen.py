"""Qwen Code's `stream-json`: Claude Code's, with an accent."""

from storyloop.agents.dialects.claude import accented as dialect

__all__ = ["dialect"]

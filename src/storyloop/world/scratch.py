"""Scratch: what a run has left in a repository besides its branch, and whether anything would be lost with it.

A pin may go when the files of every commit that only it keeps are kept by somebody else as well: by a branch, a tag, a
remote's branch, or another pin that stays. Commits are compared by their trees, because a pin that was landed became
another commit of the same files.
"""

from collections.abc import Mapping
from os import fsdecode

from storyloop.ports.repository import ScratchRef
from storyloop.world import index
from storyloop.world.git import Git
from storyloop.world.workplace import Workplace

MOST_UNKEPT = 20  # paths that are named
_OTHERS = ("--branches", "--tags", "--remotes")


def unkept(at: Workplace) -> tuple[str, ...]:
    """Files of the worktree that no ref keeps as they are, a few."""
    paths, held = index.unheld_paths(at), index.held_tree(at)
    kept = at.repository.run("for-each-ref", "--format=%(tree)", "refs/heads", f"refs/storyloop/{at.place.run_id}")
    if not paths and held not in fsdecode(kept).split():
        paths = (f"all of {at.place.worktree}",)
    return paths[:MOST_UNKEPT]


def unpushed(git: Git, branch: str) -> int:
    """Commits of the branch that no remote has; 0 where there is no remote, or no branch."""
    if not git.run("remote") or not git.has(f"refs/heads/{branch}"):
        return 0
    return int(git.line("rev-list", "--count", f"refs/heads/{branch}", "--not", "--remotes"))


def refs_of(git: Git, run_id: str, *, base: str) -> tuple[ScratchRef, ...]:
    """The run's refs, and which of them are spare; what others keep is looked for behind the run's base."""
    listed = fsdecode(git.run("for-each-ref", "--format=%(refname) %(objectname)", f"refs/storyloop/{run_id}/"))
    refs = {row.split(" ")[0]: row.split(" ")[1] for row in listed.splitlines()}
    if not refs:
        return ()
    wanted = "".join(f"{commit}\n" for commit in refs.values()).encode()
    only = git.run("rev-list", "--no-commit-header", "--format=%H %T %P", "--stdin", "--not", *_OTHERS, stdin=wanted)
    alone = {row[0]: row[1:] for row in (line.split() for line in fsdecode(only).splitlines())}
    others = git.run("rev-list", "--no-commit-header", "--format=%T", *_OTHERS, "--not", f"{base}^@")
    trees = {name: _trees_behind(commit, alone) for name, commit in refs.items()}
    return spare_refs(refs, trees, set(fsdecode(others).split()))


def _trees_behind(commit: str, alone: Mapping[str, list[str]]) -> set[str]:
    """The trees of the commits that nothing but refs like this one keeps."""
    seen, owed = set[str](), [commit]
    while owed:
        name = owed.pop()
        if name in alone and name not in seen:
            seen.add(name)
            owed += alone[name][1:]
    return {alone[name][0] for name in seen}


def spare_refs(refs: Mapping[str, str], trees: Mapping[str, set[str]], kept: set[str]) -> tuple[ScratchRef, ...]:
    """Each ref, spare or not; of several with the same files the one stays that says most: a call's comes last."""
    found: list[ScratchRef] = []
    for name in sorted(refs, key=lambda name: (name.split("/")[3] == "calls", name)):
        is_spare = trees[name] <= kept
        kept = kept | trees[name]
        found.append(ScratchRef(name=name, commit=refs[name], is_spare=is_spare))
    return tuple(found)

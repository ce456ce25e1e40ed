"""Preparing: everything about a run that could be opened is known, and nothing is written.

Whatever can be wrong with what a user gave is found here, with the cure, before the first thing is changed.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

import msgspec

from storyloop.config.layers import NO_FLAGS, Flags
from storyloop.config.load import Loaded, load, refuse_secrets
from storyloop.core.bounds import Bounds, bounds
from storyloop.core.branch import branch_fault, default_branch
from storyloop.core.errors import UserError
from storyloop.core.judge import unprovable
from storyloop.core.policy import Drain, Policy, Require, agents_of
from storyloop.core.progress import Feedback
from storyloop.core.run_state import RunState
from storyloop.core.spec import Spec
from storyloop.core.spec_file import MAX_SPEC_BYTES, dump_spec, is_json, parse_spec
from storyloop.core.words import RunStatus
from storyloop.ports.repository import CheckedOut, Checkout, Clashes, Exists, Free, Place, Repository
from storyloop.service import HeldElsewhereError, Service


class Basis(Enum):
    """Which branch a run works on, and where."""

    NEW = "a branch that it makes, in a worktree"
    REUSED = "a branch that may be there, in a worktree"
    CHECKOUT = "the branch that the user's checkout is at, in that checkout"


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A run that could be opened: everything about it is known, nothing is written."""

    spec: Spec
    spec_path: str = ""
    spec_is_markdown: bool = False
    feedback: Feedback | None = None
    loaded: Loaded
    checkout: Checkout
    base: str  # the commit that it builds on
    base_tree: str
    worktree: str
    basis: Basis
    earlier: str = ""  # what runs before it on its branch came to and left open
    stands: str | None  # the ended run whose worktree has the branch checked out: it is closed first
    bounds: Bounds
    sandbox: str  # what holds its agents and checks
    notes: tuple[str, ...]  # what a user should know before it starts

    @property
    def policy(self) -> Policy:
        return self.loaded.policy


def prepare(
    service: Service,
    spec_file: Path,
    cwd: Path,
    *,
    flags: Flags = NO_FLAGS,
    basis: Basis = Basis.NEW,
    improves: str = "",
    earlier: str = "",
) -> Prepared:
    """Look at everything a run needs. Raises UserError, with all that is wrong with one file at once.

    `improves`: the branch that it builds on, whatever the spec says; `earlier`: what agents are told of that.
    """
    spec, is_markdown = read_spec(spec_file)
    if improves:
        spec, basis = msgspec.structs.replace(spec, branch_name=improves), Basis.REUSED
    held = service.tools.secrets.find(dump_spec(spec))
    if held:
        spec = _without_secrets(service, spec)
    checkout, loaded = surveyed(service, cwd, flags=flags)
    drains = (Drain.PLAN, Drain.STORY) if spec.is_free_form else (Drain.STORY,)
    prepared = run_of(service, spec, checkout, loaded, drains=drains, basis=basis)
    told = _noted("secrets in the spec are left out of all that is kept and asked: {}", held)
    return msgspec.structs.replace(
        prepared,
        spec_path=str(spec_file.resolve()),
        spec_is_markdown=is_markdown,
        earlier=service.clean(earlier),
        notes=(*prepared.notes, *told),
    )


def surveyed(service: Service, cwd: Path, *, flags: Flags) -> tuple[Checkout, Loaded]:
    """The checkout that the user stands in, and the configuration there, with the prompts that it has."""
    checkout = service.tools.survey(cwd)
    root = Path(checkout.root)
    loaded = load(root=root, environ=service.tools.environ, flags=flags)
    refuse_secrets(loaded, service.tools.secrets)
    policy = msgspec.structs.replace(loaded.policy, prompts=templates_of(service, root))
    return checkout, msgspec.structs.replace(loaded, policy=policy)


def run_of(
    service: Service, spec: Spec, checkout: Checkout, loaded: Loaded, *, drains: tuple[Drain, ...], basis: Basis
) -> Prepared:
    """A run of this spec, if it could be opened; `drains` are those that it cannot do without."""
    missing = dict.fromkeys(note for drain in drains for note in _require_agents(service, loaded.policy, drain))
    _require_checks(service, loaded.policy, Path(checkout.root))
    _require_proofs(spec, loaded.policy)
    stands: str | None = None
    if basis is Basis.CHECKOUT:
        require_one_at_a_time(loaded.policy)
        spec = msgspec.structs.replace(spec, branch_name=_own_branch(spec, checkout))
        require_vacant(service, checkout.identity, checkout.root)
        worktree = checkout.root
    else:
        stands = _require_branch(service, spec.branch_name, checkout, reuse=basis is Basis.REUSED)
        worktree = checkout.worktree_path(loaded.policy.worktree.pattern, spec.branch_name)
        if Path(worktree).exists() and not (stands and _is_same(worktree, service.state(stands).going.worktree)):
            raise UserError(
                f"The run's worktree would stand at {worktree}, but something is there already.",
                "Move it away, or set another [worktree] pattern in storyloop.toml.",
            )
    return Prepared(
        spec=spec,
        loaded=loaded,
        checkout=checkout,
        base=checkout.head,
        base_tree=checkout.head_tree,
        worktree=worktree,
        basis=basis,
        stands=stands,
        bounds=bounds(spec, loaded.policy),
        sandbox=service.tools.held_by(loaded.policy.sandbox),
        notes=(
            *loaded.warnings,
            *checkout.warnings,
            *missing,
            *_uncounted(service, loaded.policy),
            *_noted("prompt templates of yours are used: {}", loaded.policy.prompts),
            *_noted("the run works in {}, your own checkout: leave that to it", [worktree] * (basis is Basis.CHECKOUT)),
            *_noted("the worktree of run {}, which has ended, is closed first", [stands[:8]] if stands else ()),
        ),
    )


def new_place(service: Service, branch: str, cwd: Path, *, like: RunState) -> Place:
    """Where another run like this one would sit, on a new branch. Raises UserError where that is not free."""
    checkout, run_id = service.tools.survey(cwd), service.tools.new_id()
    branch = branch or f"{like.branch}-fork-{run_id[:8]}"
    if fault := branch_fault(branch):
        raise UserError(f"`{branch}` cannot be the name of a branch: {fault}.", "Give another --branch.")
    _require_branch(service, branch, checkout, reuse=False)
    worktree = checkout.worktree_path(like.effective_config().worktree.pattern, branch)
    if Path(worktree).exists():
        raise UserError(f"Something is at {worktree} already.", "Give another --branch, or move it away.")
    return service.place(run_id, worktree=worktree, branch=branch)


def require_one_at_a_time(policy: Policy) -> None:
    """Raise UserError unless stories are worked on one at a time, which is all that a checkout has room for."""
    if (parallel := policy.limits.parallel) > 1:
        problem = f"A run in your own checkout works on one story at a time, and not on {parallel}."
        raise UserError(problem, "Add --parallel 1, or let it have worktrees: leave --no-worktree out.")


def _own_branch(spec: Spec, checkout: Checkout) -> str:
    """The branch that the user's checkout is at, if the spec names no other. No branch is ever switched for a run."""
    here, wanted = checkout.own_branch(), spec.branch_name
    if wanted in (here, default_branch(spec.title)):
        return here
    cure = "Give the spec another `## Branch`, or none"
    if isinstance(state := checkout.branch(wanted), Free | Exists):
        cure = f"Go there first (`git switch {'-c ' if isinstance(state, Free) else ''}{wanted}`), or leave it out"
    raise UserError(f"The spec is for branch {wanted}, and {checkout.root} is at {here}.", f"{cure}.")


def require_vacant(service: Service, repository: str, checkout: str, *, but: str = "") -> None:
    """Raise UserError where another run is at work in this checkout, or has left there what is not saved yet."""
    for row in service.rows(repository):
        if row.worktree != checkout or row.run_id == but:
            continue
        if (pid := service.holder(row.run_id)) is not None:
            raise HeldElsewhereError(row.run_id, pid)
        if row.status == RunStatus.RUNNING or service.at_work(row.run_id):
            problem = f"Run {row.run_id[:8]} broke off in {checkout}, and what it was at is not saved yet."
            raise UserError(problem, f"Go on with it first: `storyloop resume {row.run_id[:8]}`.")


def templates_of(service: Service, root: Path) -> dict[str, str]:
    """The prompt templates that this checkout has."""
    return service.clean(service.tools.templates(root))


def _without_secrets(service: Service, spec: Spec) -> Spec:
    """The spec without its secrets. Raises UserError where a command would no longer be what it was."""
    clean = service.clean(spec)
    for before, after in zip(spec.user_stories, clean.user_stories, strict=True):
        if [c.verify for c in before.acceptance_criteria] != [c.verify for c in after.acceptance_criteria]:
            raise UserError(
                f"A `verify:` line of story {after.id} holds a secret, which would be stored in plain text.",
                "Let the command read it from a file.",
            )
    return clean


def _require_agents(service: Service, policy: Policy, drain: Drain) -> tuple[str, ...]:
    """Notes on agents of the drain's chain that are not here, as long as one is."""
    chain = policy.chain_of(drain)
    if not chain:
        raise UserError(
            "No agent is configured.",
            "Set [chains] default in storyloop.toml (`storyloop init` writes one), or give --agent NAME.",
        )
    ladder = agents_of(policy.escalation)
    names = list(dict.fromkeys(ref.agent for ref in (*chain, *ladder)))
    absent = {name: service.tools.absent_program(policy.agents[name]) for name in names}
    missing = [
        f"agent {name}: {program} was not found or is not executable" for name, program in absent.items() if program
    ]
    if all(absent[ref.agent] for ref in chain):
        raise UserError(f"{'; '.join(missing)}.", "Install it, or correct [agents] in your configuration.")
    return tuple(missing)


def _uncounted(service: Service, policy: Policy) -> Iterator[str]:
    """Notes on budgets that may not hold those who are asked."""
    budget = policy.budget
    bounded = {name for name in ("tokens", "usd") if getattr(budget, name) or getattr(budget.story, name)}
    for ref in dict.fromkeys((*policy.chain_of(Drain.STORY), *agents_of(policy.escalation))):
        loose = bounded & service.tools.uncounted(ref, policy.agents[ref.agent])
        if loose:
            names = " and ".join(sorted(loose))
            yield f"agent {ref}: its {names} may stay unknown, and no budget counts them; calls and time hold it"


def _require_checks(service: Service, policy: Policy, root: Path) -> None:
    if policy.worktree.setup:
        return  # what a check starts may only be there after the set-up
    for name, check in policy.checks.items():
        program = service.tools.absent_word(check.run, root)
        if program is not None:
            raise UserError(
                f"check {name} starts {program}, which was not found or is not executable.",
                "Correct [checks] in storyloop.toml, or let [worktree] setup make it.",
            )


def _require_branch(service: Service, branch: str, checkout: Checkout, *, reuse: bool) -> str | None:
    """The run whose worktree is to be closed first, if there is one."""
    service.require_alone(checkout.identity, branch)
    rows, rename = service.rows(checkout.identity), "Give the spec another `## Branch`"
    match checkout.branch(branch):
        case Free():
            return None
        case Clashes(other=other):
            raise UserError(f"Branch {branch} cannot be made while there is a branch {other}.", f"{rename}.")
        case CheckedOut(path=path):
            ours = next((row.run_id for row in rows if _is_same(row.worktree, path)), None)
            if ours is None or service.state(ours).going.is_in_checkout:
                raise UserError(
                    f"Branch {branch} is checked out at {path}.",
                    f"{rename}, or switch that checkout to another branch.",
                )
            if reuse:
                require_untouched(service, ours)
                return ours
        case Exists():
            if reuse:
                return None
    runs = [row for row in rows if row.branch == branch]
    whose = f" It belongs to run {runs[0].run_id} ({runs[0].status})." if runs else ""
    go_on = f", or go on with that run: `storyloop resume {runs[0].run_id[:8]}`" if runs else ""
    raise UserError(
        f"Branch {branch} exists already.{whose}",
        f"{rename}{go_on}, or add --reuse-branch to build on top of it.",
    )


def require_untouched(service: Service, run_id: str) -> Repository:
    """The run's repository, if it has ended and its worktree holds nothing that is not on the branch."""
    state, place, hands = service.looked_at(run_id)
    run, worktree = state.run_id[:8], state.going.worktree
    if state.status not in (RunStatus.COMPLETED, RunStatus.FAILED):
        raise UserError(
            f"Branch {state.branch} is checked out at {worktree} by run {run}, which is {state.status}.",
            f"Go on with it (`storyloop resume {run}`), or give the spec another `## Branch`.",
        )
    repository = hands.repository
    repository.guard(place)  # what its owner has done to git since it ended is no agent's doing
    if repository.snapshot(place) != repository.tree_of(repository.tip(place)):
        raise UserError(
            f"The worktree {worktree} of run {run} holds changes that are not committed.",
            "Commit them there, or undo them, and try again.",
        )
    return repository


def require_as_left(state: RunState, place: Place, repository: Repository) -> None:
    """Raise UserError unless the user's checkout is as the run has left it; with work in hand, files may differ."""
    going = state.going
    in_hand = any(work.lane == 0 for work in going.work.values())
    if not in_hand and repository.snapshot(place) != going.tip_tree:
        problem = f"{place.worktree} holds changes that are not committed and no work of the run."
        raise UserError(problem, "Commit them on another branch, or put them by (`git stash -u`), and try again.")


def _is_same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _noted(sentence: str, names: Iterable[str]) -> tuple[str, ...]:
    listed = ", ".join(names)
    return (sentence.format(listed),) if listed else ()


def read_spec(path: Path) -> tuple[Spec, bool]:
    """The spec in this file, and whether it is Markdown. Raises UserError for a file that is none."""
    if not path.exists():
        raise UserError(f"There is no file {path}.", "Give the path of a spec: Markdown or JSON.")
    if not path.is_file():
        raise UserError(f"{path} is not a file.", "Give the path of a spec: Markdown or JSON.")
    if path.stat().st_size > MAX_SPEC_BYTES:
        raise UserError(
            f"{path} is larger than {MAX_SPEC_BYTES // 1_000_000} MB.", "A spec is text; is this the right file?"
        )
    text = path.read_bytes()
    spec = parse_spec(text, name=path.name)
    return spec, not is_json(text.decode("utf-8-sig"), name=path.name)


_LACKING = {
    Require.CHECKS: (
        "no command could prove them",
        "Add a check to [checks] in storyloop.toml, or a `verify:` line to a criterion",
    ),
    Require.CRITERIA: (
        "they have criteria without a command, and [proof] require is `criteria`",
        "Add a `verify:` line to each criterion, or bind `analysis` in [drains] to an agent that judges the others",
    ),
}


def _require_proofs(spec: Spec, policy: Policy) -> None:
    lacking = unprovable(spec, policy)
    if lacking:
        what, cure = _LACKING[policy.require]
        raise UserError(f"{', '.join(lacking)}: {what}.", f'{cure}; or set [proof] require = "none" to go without.')

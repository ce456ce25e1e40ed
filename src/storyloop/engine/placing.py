"""Placing: whether the places in the work that an analysis names are there."""

import posixpath
import re

from msgspec.structs import replace

from storyloop.core.artifacts import Analysis, Judgement, Ruling
from storyloop.core.facts import Answered, CallReport
from storyloop.engine.hands import Hands

_MOST_READ = 5_000_000  # bytes of a file in which lines are counted
_PLACE = re.compile(r"(?<![\w/:.-])([\w.][\w./+-]*):(\d{1,7})")


def placed(report: CallReport, tree: str, hands: Hands) -> CallReport:
    """An analysis as far as its places are there: what is met nowhere but in no file of the work is unknown."""
    if not isinstance(report.outcome, Answered) or not isinstance(analysis := report.outcome.artifact, Analysis):
        return report
    named = [_places(judgement) for judgement in analysis.judgements]
    paths = sorted({path for places in named for path, _ in places})
    files = dict(hands.repository.contents(tree, paths, most=_MOST_READ))
    ends = {path: content.count(b"\n") + 1 for path, content in files.items()}
    judgements = tuple(
        replace(judgement, ruling=Ruling.UNKNOWN, evidence=f"No such place is in the work: {judgement.evidence}")
        if places and not any(0 < line <= ends.get(path, 0) for path, line in places)
        else judgement
        for judgement, places in zip(analysis.judgements, named, strict=True)
    )
    return replace(report, outcome=Answered(artifact=replace(analysis, judgements=judgements)))


def _places(judgement: Judgement) -> list[tuple[str, int]]:
    """File and line, as many as its words name, where it says that a criterion is met."""
    if judgement.ruling is not Ruling.MET:
        return []
    found = ((posixpath.normpath(path), int(line)) for path, line in _PLACE.findall(judgement.evidence))
    return [(path, line) for path, line in found if ("." in path or "/" in path) and not path.startswith("..")]

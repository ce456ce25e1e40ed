"""The liar's gallery: docs/liars.md tells of each agent that lies what its journey comes to, and where that is told.

That the journeys come to it, within their bounds and with nothing left at work, is held by test_journeys, and that they
do wherever they are cut, by test_crash_journeys.
"""

from journeykit import FOLDERS, Journey, journeys
from test_docs import rows

JOURNEYS = journeys()
PAGE = "docs/liars.md"


def link(name: str) -> str:
    """How the page names a journey."""
    folder = next(folder for folder, place in FOLDERS.items() if (place / f"{name}.toml").exists())
    return f"[{name}](../tests/{folder}/{name}.toml)"


def row(journey: Journey) -> list[str]:
    """What is concluded, the exit code, and what stands in the report under which heading."""
    told = journey.expect.sections.items()
    where = "; ".join(f"{heading or 'at its head'}: `` {texts[0]} ``" for heading, texts in told)
    return [journey.promise, str(journey.act[-1].exit), where]


def test_the_page_tells_of_every_liar_what_its_journey_comes_to() -> None:
    """Conclusion, exit code and sentences are those of its file; some of the other journeys are of liars, too."""
    told = rows(PAGE, "liar")
    names = [name for name in JOURNEYS if link(name) in told]
    assert told == {link(name): row(JOURNEYS[name]) for name in names}
    assert {path.stem for path in FOLDERS["liars"].iterdir()} <= set(names)
    assert [name for name in names if not (JOURNEYS[name].real and JOURNEYS[name].expect.sections)] == []
    assert len(names) >= 20

"""`python -m benchmarks.driven FILE WORDS...`: the storyloop command, which leaves what it used itself in FILE.

CPU of the process alone, without the children that it waited for, is known to nobody but itself.
"""

import atexit
import json
import resource
import sys
from pathlib import Path

from storyloop.cli.main import main


def _leave(file: Path) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    file.write_text(json.dumps({"cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}))


if __name__ == "__main__":
    _, target, *words = sys.argv
    atexit.register(_leave, Path(target))
    sys.argv = ["storyloop", *words]
    main()

"""The kits of the other tests are for these, too, also when these run alone."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))

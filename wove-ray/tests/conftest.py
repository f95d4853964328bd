"""Where the tests of this folder find each other, and what they ask of Ray."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ray_cluster import QUIET

# Before Ray is imported for the first time.
os.environ.update(QUIET)

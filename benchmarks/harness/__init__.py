"""Measuring inference engines against each other, fairly.

Each engine lives in its own process (`worker`), pinned to as many cores as it has threads. The
parent (`client`) talks to the processes in turn, so that rounds of the engines alternate and a
change of clock or of neighbours hits all of them alike.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("aicc") is None:  # not installed: that of this folder is meant
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

"""Makes the helpers of the code generator's tests importable: they run kernels as native code."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "codegen"))

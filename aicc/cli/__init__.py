"""The command `aicc`. What it needs beyond the library is the extra `cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; exits with one of the codes that `aicc --help` lists."""
    try:
        from aicc.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print(
            f"error: the command line needs {error.name}; pip install 'aicc[cli]' brings it",
            file=sys.stderr,
        )
        raise SystemExit(4) from None
    app(prog_name="aicc")

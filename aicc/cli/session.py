"""What all commands share: progress and warnings on standard error, faults as one message and an
exit code."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import rich.console
import typer

from aicc.cli.values import UsageError
from aicc.errors import AiccError, ExecutionError, InputError, MissingPackageError

OK, REFUSED, USAGE, RUN_FAILED, MISSING, INTERRUPTED = 0, 1, 2, 3, 4, 130

Progress = Callable[[str], None]


@contextlib.contextmanager
def session(debug: bool) -> Iterator[Progress]:
    """Gives a function that shows what is going on, where somebody looks.

    debug: lets errors through, with their traceback.
    """
    console = rich.console.Console(stderr=True)
    shown = console.status("starting") if console.is_terminal else None

    def progress(text: str) -> None:
        if shown is not None:
            shown.update(f"{text} ...")

    def warn(message: Warning | str, *_: Any, **__: Any) -> None:
        say(f"warning: {message}")

    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.showwarning = warn
        if shown is not None:
            stack.enter_context(shown)
        try:
            yield progress
        except (typer.Exit, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            code, message = INTERRUPTED, "interrupted"
        except Exception as error:
            if debug:
                raise
            code, message = _judged(error)
        else:
            return
    say(f"error: {message}")
    raise typer.Exit(code)


def _judged(error: Exception) -> tuple[int, str]:
    text = str(error)
    if isinstance(error, UsageError | InputError):
        return USAGE, text
    if isinstance(error, ExecutionError):
        return RUN_FAILED, text
    if isinstance(error, MissingPackageError):
        return MISSING, text
    if isinstance(error, ModuleNotFoundError):
        return MISSING, f"{error.name} is not installed"
    if isinstance(error, AiccError):
        return REFUSED, text
    if isinstance(error, ValueError | OSError):
        return USAGE, text
    return REFUSED, f"a fault in aicc, {type(error).__name__}: {text} (--debug shows where)"


def say(text: str) -> None:
    """Writes a line to standard error."""
    print(text, file=sys.stderr, flush=True)

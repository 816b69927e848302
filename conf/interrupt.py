"""Ctrl-C while a command is still importing what it needs: one line instead of a traceback.

Imported first by every command, for its effect. Once a command has begun, `conf.command` answers.
"""

import multiprocessing
import os
import sys
from types import TracebackType


def _answer(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, place)
        return
    if multiprocessing.parent_process() is None:
        print("stopped", file=sys.stderr, flush=True)
    os._exit(130)


sys.excepthook = _answer

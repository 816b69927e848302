"""Ctrl-C while a command is still importing what it needs: one line instead of a traceback.

Every command imports this module first, for its effect. Once a command has started, `conf.command`
handles Ctrl-C.
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

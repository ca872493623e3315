"""Arrange a process's memory so that those forked from it write to few of its pages.

A child copies a page of memory when it first writes to it. Python writes to every object that it
uses, to count its references, and the C library puts new blocks between old ones. So the pages that
a child copies are few where what it uses, and what is free, stand together.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType, FunctionType

from icon_classifier.system import memory


def arrange(executed: dict[int, CodeType]) -> None:
    """Arrange the memory of this process, before its first fork.

    Parameters
    ----------
    executed : dict of int to types.CodeType
        The code that its children will run, from :func:`executed_code`. To be kept: were the old
        code freed, the children would fill its gaps.
    """
    if sys.version_info < (3, 12):
        # It counts as a user of the names of methods: whoever replaces an entry writes to the old
        # name too. From 3.12 on names are not counted.
        sys._clear_type_cache()
    memory.fill_heap()
    gather_code(executed)


@contextlib.contextmanager
def executed_code() -> Iterator[dict[int, CodeType]]:
    """Collect the code that is run in a block, by this thread and those that are started in it.

    Yields
    ------
    dict of int to types.CodeType
        By its id: code that only equals other code counts as another.
    """
    executed: dict[int, CodeType] = {}

    def enter(frame: FrameType, _event: str, _argument: object) -> None:
        executed[id(frame.f_code)] = frame.f_code

    before = sys.gettrace(), threading.gettrace()
    sys.settrace(enter)
    threading.settrace(enter)
    try:
        yield executed
    finally:
        sys.settrace(before[0])
        threading.settrace(before[1])


def gather_code(executed: dict[int, CodeType]) -> None:
    """Give the functions whose code was run a copy of it, so that these copies stand together.

    A child writes to the code that it runs: its references, and the counters of the interpreter
    that specialises it. The code of a module stands in the order of the file, used or not.
    """
    copies: dict[int, CodeType] = {}

    def copy(code: CodeType) -> CodeType:
        if id(code) not in executed:
            return code
        if id(code) not in copies:
            constants = (copy(c) if isinstance(c, CodeType) else c for c in code.co_consts)
            copies[id(code)] = code.replace(co_consts=tuple(constants))
        return copies[id(code)]

    for function in gc.get_objects():
        # Not isinstance(): some objects run code when they are asked for their class.
        if type(function) is FunctionType and id(function.__code__) in executed:
            function.__code__ = copy(function.__code__)

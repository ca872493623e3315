"""Arrange a process's memory so that those forked from it write to few of its pages.

A child copies a page of memory when it first writes to it. Python writes to every object that it
uses, to count its references, and new objects fill what is free between old ones. So the pages that
a child copies are few where what it uses, and what is free, stand together.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import CodeType, FrameType, FunctionType

from icon_classifier.system import memory


def arrange(executed: dict[int, CodeType]) -> tuple[object, ...]:
    """Arrange the memory of this process, before its first fork.

    Parameters
    ----------
    executed : dict of int to types.CodeType
        The code that its children will run, from :func:`executed_code`.

    Returns
    -------
    tuple
        To be kept for as long as there are children.
    """
    if sys.version_info < (3, 12):
        # It counts as a user of the names of methods: whoever replaces an entry writes to the old
        # name too. From 3.12 on names are not counted.
        sys._clear_type_cache()
    filler = fill_free_blocks()
    memory.fill_heap()
    gather_code(executed)
    return filler, executed  # were the old code freed, its gaps would be filled by the children


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


def fill_free_blocks() -> list[list[object]]:
    """Occupy the free blocks between Python's objects, so that children do not.

    A child would put its first small objects there, one here and one there, and for each copy a
    whole page that it could have shared. With the free blocks filled its objects stand together in
    new pages, which saves each child 1 MB.

    Returns
    -------
    list of list of object
        To be kept for as long as there are children; empty where the allocator does not report
        what is free.
    """
    filler: list[list[object]] = []
    for size, free in _free_blocks():
        if size < 48:  # too small for bytes, of which even an empty one has 33
            filler.append([object() if size == 16 else float(number) for number in range(free)])
        else:
            filler.append([bytes(size - 33) for _ in range(free)])
    return filler


def _free_blocks() -> list[tuple[int, int]]:
    """Parse the report of Python's allocator, which goes to standard error only.

    Returns
    -------
    list of (int, int)
        Size of the blocks in bytes, and how many of them are free.
    """
    with tempfile.TemporaryFile() as report:
        standard_error = os.dup(2)
        os.dup2(report.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
        report.seek(0)
        text = report.read().decode("ascii", "replace")
    # class, size of a block, pools, blocks in use, blocks free
    rows = re.findall(r"^ *\d+ +(\d+) +\d+ +\d+ +(\d+)$", text, re.MULTILINE)
    return [(int(size), int(free)) for size, free in rows]

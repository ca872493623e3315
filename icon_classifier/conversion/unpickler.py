"""Read a pickle symbolically: return what it describes without importing or calling anything.

A pickle is a small program: it names functions and calls them. Here each name and each call becomes
a symbol (:class:`Global`, :class:`Object`); only numbers, strings and the built-in containers are
created. So any name is harmless, whatever it names; those who use a symbol compare its name.
fickling and picklescan check a pickle before it is unpickled; here it is not unpickled at all.

Only the standard library is used.
"""

import pickletools
import reprlib
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

from icon_classifier.errors import ConversionError, NotAnExportError, UntrustedExportError

MAX_STEPS = 1_000_000
"""Most opcodes that are interpreted for one file, which limits its time and memory.

A Learner has some 10,000; each batch that its Recorder remembers, or row of a table that a function
of the notebook uses, adds about 20.
"""

MAX_NAME = 200
"""Most characters of the name of a class or module, or of a label that is a path."""

LEAVE_OUT = (
    "leave out what is not the model, such as a table that a function of the notebook uses, and "
    "export again"
)

_STACK_ERRORS = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError),
    *(MemoryError, OverflowError, RecursionError, struct.error),
)


class _Repr(reprlib.Repr):
    # Otherwise the whole repr is made first.
    repr_OrderedDict = reprlib.Repr.repr_dict  # noqa: N815

    def repr_bytes(self, value: bytes, _: int) -> str:
        return repr(value[: self.maxstring])


_repr = _Repr()
_repr.maxstring = _repr.maxother = 80


def shorten(value: object) -> str:
    """Return the beginning of a value's repr for a message; what it leaves out is not computed."""
    return _repr.repr(value)


@dataclass(frozen=True)
class Global:
    """The name of a class or function, which is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    __repr__ = __str__


@dataclass(frozen=True)
class Storage:
    """A reference to the data of a tensor, which stays in the archive.

    Parameters
    ----------
    kind : str
        torch's name of the storage, which implies the dtype: 'FloatStorage' and the like.
    key : str
        Name of the entry of the archive that holds the bytes.
    numel : int
        Number of elements.
    """

    kind: str
    key: str
    numel: int


@dataclass(eq=False, slots=True, repr=False)
class Object:
    """An object that unpickling would create: a call that is not made.

    Parameters
    ----------
    call : Global or Object
        The class or function.
    args : tuple
        Its arguments.
    state : object
        The argument of ``__setstate__``, usually a dict of attributes.
    items : list
        What would be appended to the object, or the pairs that would be set in it.
    """

    call: Any
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    @property
    def cls(self) -> str:
        """Dotted name of what is called: the class, for most objects."""
        match self.call:
            case Global():
                return str(self.call)
            case Object(Global(name="_make_skeleton_class" | "_create_type"), (_, str(name), *_)):
                # a class that cloudpickle or dill stored by value
                return f"__main__.{name[:MAX_NAME]}"
            case Object(Global() as function):
                return str(function)
        return "a nested call"

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, if the state is a dict of them, as it usually is."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return state.get(name, default) if isinstance(state, dict) else default

    def __repr__(self) -> str:
        return f"<{self.cls}>"


class Unpickler:
    """The pickle machine, with symbols instead of objects.

    Parameters
    ----------
    steps : iterator, optional
        Gives out one item for each opcode that may still be interpreted; MAX_STEPS by default.
    load_bytes : callable, optional
        What ``torch.storage._load_from_bytes`` returns for its argument: a tensor's data, which an
        ordinary pickle holds so.

    Attributes
    ----------
    storages : dict
        The storages that the pickles so far refer to, by key.
    """

    def __init__(
        self,
        steps: Iterator[int] | None = None,
        load_bytes: Callable[[bytes], Any] | None = None,
    ) -> None:
        self.steps = iter(range(MAX_STEPS)) if steps is None else steps
        self.load_bytes = load_bytes
        self.storages: dict[str, Storage] = {}
        self.stack: list[Any] = []
        self.marks: list[int] = []  # height of the stack at each open mark
        self.memo: list[Any] = []

    def load(self, file: IO[bytes]) -> Any:
        """Return the value that a pickle describes; leave the file behind its end.

        Raises
        ------
        UntrustedExportError
            It uses what only a crafted pickle uses.
        ConversionError
            It is damaged or too large.
        """
        self.stack, self.marks, self.memo = [], [], []
        try:
            with warnings.catch_warnings():
                # pickletools decodes Python 2's strings, which are refused, and warns of its own.
                warnings.simplefilter("ignore", DeprecationWarning)
                return self._run(file)
        except _STACK_ERRORS as error:
            # pickletools raises ValueError on bytes that are not a pickle; the others come from a
            # stack that does not hold what an opcode needs.
            raise ConversionError(
                f"the pickle is damaged; copy or download it again ({error})"
            ) from error

    def _run(self, file: IO[bytes]) -> Any:
        """Interpret the opcodes up to STOP; return the top of the stack."""
        for _, (opcode, arg, _) in zip(self.steps, pickletools.genops(file), strict=False):
            name = opcode.name
            if name in _LITERALS:
                self.stack.append(arg)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _HANDLERS:
                _HANDLERS[name](self, arg)
            elif name == "STOP":
                return self.stack.pop()
            elif name not in _IGNORED:
                raise UntrustedExportError(f"the pickle uses {name}, which Python never writes")
        raise ConversionError(f"the pickle has more than {MAX_STEPS:,} parts; {LEAVE_OUT}")

    def pop_mark(self) -> list[Any]:
        """Pop the last mark and all values above it."""
        height = self.marks.pop()
        above = self.stack[height:]
        del self.stack[height:]
        return above

    def top(self, kind: type) -> Any:
        """Return the top of the stack, which must be of a type or an Object."""
        top = self.stack[-1]
        if not isinstance(top, (kind, Object)):
            raise UntrustedExportError(f"the pickle fills {type(top).__name__} {shorten(top)}")
        return top

    def name(self, module: object, name: object) -> None:
        """Push the symbol of a name."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise UntrustedExportError("the pickle uses a name that is not a string")
        if module == "joblib.numpy_pickle":  # it writes arrays between the opcodes
            raise NotAnExportError(
                "expected an export of a fastai Learner, got a file of joblib; call learn.export() "
                "in the notebook that trained it, and take the file it writes"
            )
        if max(len(module), len(name)) > MAX_NAME:
            raise ConversionError(f"expected names of at most {MAX_NAME} characters, got more")
        self.stack.append(Global(module, name))

    def call(self, args: object, call: object) -> None:
        """Push the symbol of a call; only containers and bytes are created."""
        if not isinstance(args, tuple) or not isinstance(call, (Global, Object)):
            raise UntrustedExportError(f"the pickle calls {shorten(call)}")
        made = isinstance(call, Global) and call.name in _MADE
        self.stack.append(self.make(call, args) if made else Object(call, args))

    def make(self, call: Global | Object, args: tuple[Any, ...]) -> Any:
        """Return what a call of one of `_MADE` gives, or its symbol if that needs more."""
        match call, args:
            case Global("builtins" | "__builtin__", "set" | "frozenset" as kind), ():
                return set() if kind == "set" else frozenset()
            case Global("builtins" | "__builtin__", "set" | "frozenset" as kind), (list(), *_):
                self.spend(len(args[0]))
                return {"set": set, "frozenset": frozenset}[kind](map(_key, args[0]))
            case Global("builtins" | "__builtin__", "list"), ():
                return []
            case Global("builtins" | "__builtin__", "dict"), ():
                return {}
            case Global("collections", "OrderedDict"), ():
                return OrderedDict()
            case Global("builtins" | "__builtin__", "bytes"), ():
                return b""
            case Global("_codecs", "encode"), (str(text), "latin1"):  # bytes, in protocol 2
                self.spend(len(text) // 64)
                return text.encode("latin1")
            case Global("torch.storage", "_load_from_bytes"), (bytes(data),) if self.load_bytes:
                return self.load_bytes(data)
            case Global(_, "_builtin_type" | "_load_type"), (str(name),):
                return Global("builtins", name)  # as cloudpickle and dill name Python's own
            case Global(_, "_class_setstate" | "_function_setstate"), (Object() as target, state):
                target.state = state  # of a class or function that cloudpickle stored by value
                return target
        return Object(call, args)

    def spend(self, count: int) -> None:
        """Count a call that copies something, which may be shared, as so many opcodes."""
        next(islice(self.steps, count, count), None)

    def build(self, state: object) -> None:
        """Set the state of an object."""
        top = self.top(OrderedDict)
        if isinstance(top, Object):
            top.state = state
        # The state of an OrderedDict is torch's metadata of a state_dict, which is not needed.

    def append(self, values: list[Any]) -> None:
        """Append to a list, or to the items of an object."""
        top = self.top(list)
        (top.items if isinstance(top, Object) else top).extend(values)

    def set_items(self, flat: list[Any]) -> None:
        """Set pairs in a dict, or append them to the items of an object."""
        top = self.top(dict)
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        if isinstance(top, Object):
            top.items.extend(pairs)
        else:
            top.update((_key(key), value) for key, value in pairs)

    def add_items(self, values: list[Any]) -> None:
        """Add to a set."""
        top = self.stack[-1]
        if not isinstance(top, set):
            raise UntrustedExportError(f"the pickle fills {type(top).__name__} {shorten(top)}")
        top.update(map(_key, values))

    def memoize(self, index: int | None) -> None:
        """Remember the top of the stack; indices are given in order."""
        if index is None or index == len(self.memo):
            self.memo.append(self.stack[-1])
        else:
            self.memo[index] = self.stack[-1]

    def persistent(self, reference: object) -> None:
        """Push what torch keeps outside a pickle: the data of a tensor, or a class with source."""
        match reference:
            case (
                "storage",
                Global("torch" | "torch.storage", kind),
                str(key),
                str(),  # the device
                int(numel),
                *view,
            ) if key.isalnum() and numel >= 0 and view in ([], [None]):
                self.storages[key] = Storage(kind, key, numel)
                self.stack.append(self.storages[key])
            case ("module", Global() as cls, *_):
                self.stack.append(cls)
            case _:
                raise UntrustedExportError(f"the pickle refers to {shorten(reference)}")


_MADE = {
    *("bytes", "dict", "encode", "frozenset", "list", "OrderedDict", "set"),
    *("_builtin_type", "_class_setstate", "_function_setstate", "_load_from_bytes", "_load_type"),
}
"""Names of the functions whose calls are not kept as symbols."""


def _key(value: Any) -> Any:
    """Return a value as a key whose hash is computed in no time.

    Tuples can be nested so that their hashes never end, and huge ints can all have one hash.
    """
    if isinstance(value, (str, bytes, float, Global, Object, Storage)) or value is None:
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return Object(Global("builtins", type(value).__name__), (value,))


_IGNORED = {"PROTO", "FRAME"}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"),
    *("BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINBYTES"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}


def _pop(m: Unpickler, _: Any) -> None:
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.stack.pop()


def _pop_mark(m: Unpickler, _: Any) -> None:
    m.pop_mark()


def _tuple(size: int) -> Callable[[Unpickler, Any], None]:
    def handle(m: Unpickler, _: Any) -> None:
        m.stack[-size:] = [tuple(m.stack[-size:])]

    return handle


def _newobj_ex(m: Unpickler, _: Any) -> None:
    kwargs, args, call = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.call((*args, kwargs), call)


_HANDLERS: dict[str, Callable[[Unpickler, Any], None]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "FROZENSET": lambda m, _: m.stack.append(frozenset(map(_key, m.pop_mark()))),
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.add_items(m.pop_mark()),
    "PUT": Unpickler.memoize,
    "BINPUT": Unpickler.memoize,
    "LONG_BINPUT": Unpickler.memoize,
    "MEMOIZE": Unpickler.memoize,
    "GET": lambda m, key: m.stack.append(m.memo[key]),
    "BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "LONG_BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "GLOBAL": lambda m, names: m.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(m.stack.pop(-2), m.stack.pop()),
    "REDUCE": lambda m, _: m.call(m.stack.pop(), m.stack.pop()),
    "NEWOBJ": lambda m, _: m.call(m.stack.pop(), m.stack.pop()),
    "NEWOBJ_EX": _newobj_ex,
    "BUILD": lambda m, _: m.build(m.stack.pop()),
    "BINPERSID": lambda m, _: m.persistent(m.stack.pop()),
}

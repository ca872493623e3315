"""Read a pickle symbolically: return what it describes without importing or calling anything.

A pickle is a small program: it names functions and calls them. Here each name and each call becomes
a symbol (:class:`Global`, :class:`Object`); only numbers, strings and the built-in containers are
created. :mod:`.allowlist` decides which names are accepted; a pickle with any other is refused.
fickling and picklescan check a pickle before it is unpickled; here it is not unpickled at all.

Only the standard library is used.
"""

import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from icon_classifier.conversion.allowlist import is_allowed
from icon_classifier.errors import ConversionError, UntrustedExportError

_STACK_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError)


@dataclass(frozen=True)
class Global:
    """The name of a class or function, which is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


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


@dataclass(eq=False)
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
        return str(self.call) if isinstance(self.call, Global) else "?"

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, if the state is a dict of them, as it usually is."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return state.get(name, default) if isinstance(state, dict) else default

    def __repr__(self) -> str:
        return f"<{self.cls}>"


def parse_pickle(program: bytes) -> Any:
    """Return the value that a pickle describes, made of symbols and built-ins.

    Raises
    ------
    UntrustedExportError
        It names something that a model has no use for, or uses what only a crafted pickle uses.
    ConversionError
        It is damaged.
    """
    try:
        with warnings.catch_warnings():
            # pickletools decodes Python 2's strings, which are refused, with a warning of its own.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _Machine().run(program)
    except _STACK_ERRORS as error:
        # pickletools raises ValueError on bytes that are not a pickle; the others come from a
        # stack that does not hold what an opcode needs.
        raise ConversionError(f"the pickle is damaged ({error})") from error


class _Machine:
    """The pickle machine, with symbols instead of objects."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # height of the stack at each open mark
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Interpret the opcodes up to STOP; return the top of the stack."""
        for opcode, arg, _ in pickletools.genops(program):
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
                raise UntrustedExportError(f"the pickle uses {name}, which torch.save never does")
        raise EOFError("no end")

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
            raise UntrustedExportError(f"the pickle fills {type(top).__name__} {top!r:.100}")
        return top

    def name(self, module: object, name: object) -> None:
        """Push the symbol of a name, if it is allowed."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise UntrustedExportError("the pickle uses a name that is not a string")
        if not is_allowed(module, name):
            raise UntrustedExportError(
                f"the pickle names {module}.{name}, which a model has no use for"
            )
        self.stack.append(Global(module, name))

    def call(self, args: object, call: object) -> None:
        """Push the symbol of a call; only containers and bytes are created."""
        if not isinstance(args, tuple) or not isinstance(call, (Global, Object)):
            raise UntrustedExportError(f"the pickle calls {call!r:.100}")
        make = _MAKERS.get((call.module, call.name)) if isinstance(call, Global) else None
        if isinstance(call, Global) and call.name == "getattr" and str(args[-1]).startswith("__"):
            raise UntrustedExportError(f"the pickle uses the attribute {args[-1]}")
        if isinstance(call, Global) and call.name == "_class_setstate":
            args[0].state = args[1]  # of cloudpickle, which sets a class's attributes so
        self.stack.append(make(*args) if make else Object(call, args))

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
            top.update(pairs)

    def add_items(self, values: list[Any]) -> None:
        """Add to a set."""
        top = self.stack[-1]
        if not isinstance(top, set):
            raise UntrustedExportError(f"the pickle fills {type(top).__name__} {top!r:.100}")
        top.update(values)

    def storage(self, persistent_id: object) -> None:
        """Push a reference to the data of a tensor."""
        match persistent_id:
            case ("storage", Global("torch" | "torch.storage", kind), str(key), str(), int(numel)):
                if not key.isalnum() or numel < 0:
                    raise UntrustedExportError(f"the pickle refers to the storage {key!r:.100}")
                self.stack.append(Storage(kind, key, numel))
            case _:
                raise UntrustedExportError(f"the pickle refers to {persistent_id!r:.100}")


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes, which protocol 2 writes as a call of `codecs.encode` with this encoding."""
    if encoding != "latin1":
        raise UntrustedExportError(f"the pickle uses the encoding {encoding!r:.100}")
    return text.encode("latin1")


_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        (module, name): make
        for module in ("builtins", "__builtin__")
        for name, make in {"set": set, "frozenset": frozenset, "list": list, "dict": dict}.items()
    },
    ("__builtin__", "bytes"): lambda: b"",
    ("builtins", "bytes"): lambda: b"",
}

_IGNORED = {"PROTO", "FRAME"}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"),
    *("BINBYTES", "BINBYTES8", "SHORT_BINBYTES"),
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


def _memoize(m: _Machine, key: int | None) -> None:
    m.memo[len(m.memo) if key is None else key] = m.stack[-1]


def _pop(m: _Machine, _: Any) -> None:
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.stack.pop()


def _pop_mark(m: _Machine, _: Any) -> None:
    m.pop_mark()


def _tuple(size: int) -> Callable[[_Machine, Any], None]:
    def handle(m: _Machine, _: Any) -> None:
        m.stack[-size:] = [tuple(m.stack[-size:])]

    return handle


def _newobj_ex(m: _Machine, _: Any) -> None:
    kwargs, args, call = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.call((*args, kwargs), call)


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "FROZENSET": lambda m, _: m.stack.append(frozenset(m.pop_mark())),
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.add_items(m.pop_mark()),
    "PUT": _memoize,
    "BINPUT": _memoize,
    "LONG_BINPUT": _memoize,
    "MEMOIZE": _memoize,
    "GET": lambda m, key: m.stack.append(m.memo[key]),
    "BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "LONG_BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "GLOBAL": lambda m, names: m.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(m.stack.pop(-2), m.stack.pop()),
    "REDUCE": lambda m, _: m.call(m.stack.pop(), m.stack.pop()),
    "NEWOBJ": lambda m, _: m.call(m.stack.pop(), m.stack.pop()),
    "NEWOBJ_EX": _newobj_ex,
    "BUILD": lambda m, _: m.build(m.stack.pop()),
    "BINPERSID": lambda m, _: m.storage(m.stack.pop()),
}

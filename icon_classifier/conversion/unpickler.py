"""Follow a pickle on paper: what it would have built, in records, and nothing built.

A pickle is a little program: it names functions and calls them. Here, wherever it names or calls
something, a record of that (:class:`Global`, :class:`Object`) is put in its place; nothing is
imported, called or built but numbers, texts and the plain containers. What it may name at all is
decided by :mod:`.allowlist`, and one that names more is refused. The idea is that of
fickling and picklescan, taken one step further: not a check before the real unpickling, but no real
unpickling at all.

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
    """Something that the pickle names: a class or function that is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """The numbers of a tensor, still in the archive.

    Parameters
    ----------
    kind : str
        torch's name of the storage, which says the dtype: 'FloatStorage' and the like.
    key : str
        Where the archive has the bytes.
    numel : int
        How many numbers.
    """

    kind: str
    key: str
    numel: int


@dataclass(eq=False)
class Object:
    """Something that the pickle would have built: what was called with which arguments.

    Parameters
    ----------
    call : Global or Object
        The class or function.
    args : tuple
        Its arguments.
    state : object
        What the result was then given to restore, usually a dict of attributes.
    items : list
        What was then appended to the result, or pairs that were set in it.
    """

    call: Any
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    @property
    def cls(self) -> str:
        """Dotted name of what was called: the class, for most objects."""
        return str(self.call) if isinstance(self.call, Global) else "?"

    def get(self, name: str, default: Any = None) -> Any:
        """Attribute of the object that is restored, if its state is a dict (the usual case)."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return state.get(name, default) if isinstance(state, dict) else default

    def __repr__(self) -> str:
        return f"<{self.cls}>"


def follow(program: bytes) -> Any:
    """Return what a pickle would have built, in records.

    Raises
    ------
    UntrustedExportError
        It names something that a model has no use for, or does what only a crafted one does.
    ConversionError
        It is damaged.
    """
    try:
        with warnings.catch_warnings():
            # pickletools decodes Python 2's texts, which are refused, with a warning of its own.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _Reader().follow(program)
    except _STACK_ERRORS as error:
        # pickletools raises ValueError on what is no pickle; the others are a stack gone wrong.
        raise ConversionError(f"the pickle is damaged ({error})") from error


class _Reader:
    """Follows one pickle on paper."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # how high the stack was at each open mark
        self.memo: dict[int, Any] = {}

    def follow(self, program: bytes) -> Any:
        """Return what the pickle would have built, in records."""
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
        """Pop all above the last mark, and the mark."""
        at = self.marks.pop()
        above = self.stack[at:]
        del self.stack[at:]
        return above

    def top(self, kind: type) -> Any:
        """Return the top of the stack, which must be of a kind or an Object."""
        top = self.stack[-1]
        if not isinstance(top, (kind, Object)):
            raise UntrustedExportError(f"the pickle fills {type(top).__name__} {top!r:.100}")
        return top

    def name(self, module: object, name: object) -> None:
        """Push something that is named, if it may be."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise UntrustedExportError("the pickle names something by what is no text")
        if not is_allowed(module, name):
            raise UntrustedExportError(
                f"the pickle names {module}.{name}, which a model has no use for"
            )
        self.stack.append(Global(module, name))

    def call(self, args: object, call: object) -> None:
        """Push the record of a call; only what makes plain containers and bytes is really made."""
        if not isinstance(args, tuple) or not isinstance(call, (Global, Object)):
            raise UntrustedExportError(f"the pickle calls {call!r:.100}")
        make = _MAKERS.get((call.module, call.name)) if isinstance(call, Global) else None
        if isinstance(call, Global) and call.name == "getattr" and str(args[-1]).startswith("__"):
            raise UntrustedExportError(f"the pickle reaches for the attribute {args[-1]}")
        self.stack.append(make(*args) if make else Object(call, args))

    def build(self, state: object) -> None:
        """Note the state of an object."""
        top = self.top(OrderedDict)
        if isinstance(top, Object):
            top.state = state
        # An OrderedDict has a state where torch put metadata beside the parameters: not needed.

    def append(self, values: list[Any]) -> None:
        """Append to a list, or note what is appended to an object."""
        top = self.top(list)
        (top.items if isinstance(top, Object) else top).extend(values)

    def set_items(self, flat: list[Any]) -> None:
        """Set in a dict, or note what is set in an object."""
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
        """Push a reference to the numbers of a tensor."""
        match persistent_id:
            case ("storage", Global("torch" | "torch.storage", kind), str(key), str(), int(numel)):
                if not key.isalnum() or numel < 0:
                    raise UntrustedExportError(f"the pickle refers to the storage {key!r:.100}")
                self.stack.append(Storage(kind, key, numel))
            case _:
                raise UntrustedExportError(f"the pickle refers to {persistent_id!r:.100}")


def _encode(text: str, encoding: str) -> bytes:
    """Protocol 2 writes bytes as a call of `codecs.encode`, always with this encoding."""
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


def _remember(reader: _Reader, key: int | None) -> None:
    reader.memo[len(reader.memo) if key is None else key] = reader.stack[-1]


def _pop(reader: _Reader, _: Any) -> None:
    if reader.marks and reader.marks[-1] == len(reader.stack):
        reader.marks.pop()
    else:
        reader.stack.pop()


def _pop_mark(reader: _Reader, _: Any) -> None:
    reader.pop_mark()


def _tuple(size: int) -> Callable[[_Reader, Any], None]:
    def handle(reader: _Reader, _: Any) -> None:
        reader.stack[-size:] = [tuple(reader.stack[-size:])]

    return handle


def _newobj_ex(reader: _Reader, _: Any) -> None:
    kwargs, args, call = reader.stack.pop(), reader.stack.pop(), reader.stack.pop()
    reader.call((*args, kwargs), call)


_HANDLERS: dict[str, Callable[[_Reader, Any], None]] = {
    "MARK": lambda r, _: r.marks.append(len(r.stack)),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda r, _: r.stack.append(r.stack[-1]),
    "TUPLE": lambda r, _: r.stack.append(tuple(r.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": lambda r, _: r.stack.append(r.pop_mark()),
    "FROZENSET": lambda r, _: r.stack.append(frozenset(r.pop_mark())),
    "APPEND": lambda r, _: r.append([r.stack.pop()]),
    "APPENDS": lambda r, _: r.append(r.pop_mark()),
    "SETITEM": lambda r, _: r.set_items([r.stack.pop(-2), r.stack.pop()]),
    "SETITEMS": lambda r, _: r.set_items(r.pop_mark()),
    "ADDITEMS": lambda r, _: r.add_items(r.pop_mark()),
    "PUT": _remember,
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "MEMOIZE": _remember,
    "GET": lambda r, key: r.stack.append(r.memo[key]),
    "BINGET": lambda r, key: r.stack.append(r.memo[key]),
    "LONG_BINGET": lambda r, key: r.stack.append(r.memo[key]),
    "GLOBAL": lambda r, names: r.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda r, _: r.name(r.stack.pop(-2), r.stack.pop()),
    "REDUCE": lambda r, _: r.call(r.stack.pop(), r.stack.pop()),
    "NEWOBJ": lambda r, _: r.call(r.stack.pop(), r.stack.pop()),
    "NEWOBJ_EX": _newobj_ex,
    "BUILD": lambda r, _: r.build(r.stack.pop()),
    "BINPERSID": lambda r, _: r.storage(r.stack.pop()),
}

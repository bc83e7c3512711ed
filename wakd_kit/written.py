"""Code by its content: the source of a function or class and of all it uses that is no library's."""

from __future__ import annotations

import argparse
import ast
import contextlib
import enum
import functools
import hashlib
import importlib.machinery
import importlib.util
import inspect
import itertools
import json
import re
import sys
import textwrap
import tokenize
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath

PYTHON_S = {"__module__", "__dict__", "__weakref__", "__doc__", "__firstlineno__", "__static_attributes__"}
PYTHON_S |= {"__abstractmethods__", "__slotnames__"}
DATACLASS_S = {"__init__", "__repr__", "__eq__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__", "__setattr__"}
DATACLASS_S |= {"__delattr__", "__replace__", "__getstate__", "__setstate__"}
SHOWN = (bytes, complex, range, slice, re.Pattern, PurePath)  # Python's own, whose repr is what they hold


def written(thing: Callable | type) -> str:
    """The source of a function or class, without comments and layout, and of what it uses, as far as that is no library's.

    Classes by their methods, so that those typed into a notebook have a source as well. Where there is no source, the
    compiled code; where there is none of that either, a warning says that a change cannot be noticed.
    """
    return _written(thing, set())


def _written(thing: Callable | type, opened: set[int]) -> str:
    found: dict[int | Path, tuple[str, str]] = {}  # by id, for what a factory makes and lambdas share a name
    _write(thing, found, opened)
    return "\n".join(f"# {name}\n{text}" for name, text in sorted(found.values()))


def of_library(thing) -> bool:
    """Whether something is Python's, an installed package's or the kit's own."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None) or ""
    return name != "__main__" and elsewhere(name, getattr(sys.modules.get(name), "__file__", None))


def elsewhere(name: str, file: str | None) -> bool:
    """``of_library`` of a module by its name and where its file lies."""
    installed = any(part in (file or "") for part in ("site-packages", "dist-packages"))
    return installed or name.partition(".")[0] in {"wakd_kit", *sys.stdlib_module_names}


def plain(value, opened: set[int] | None = None):
    """A value as JSON knows it: settings as they are, functions by their name and code, objects of one's own by their type and
    what they hold, anything else by its type. ``opened`` are ids of objects that are not opened again: they may hold each other."""
    opened = set() if opened is None else opened
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(one, opened) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(plain(one, {*opened})) for one in value)
    if isinstance(value, Mapping):
        return {str(key): plain(one, opened) for key, one in value.items()}
    if isinstance(value, (functools.partial, functools.partialmethod)):
        return [plain(part, opened) for part in (value.func, value.args, value.keywords)]
    if hasattr(type(value), "tolist"):  # arrays and tensors
        return plain(value.tolist())
    if isinstance(value, enum.Enum):
        return [_name(value), value.name, plain(value.value, opened)]
    if isinstance(value, types.MethodType):
        if _opens(value.__self__):
            return [plain(value.__func__, opened), plain(value.__self__, opened)]
        value = value.__func__
    if isinstance(value, SHOWN) or _name(value) in ("torch.dtype", "torch.device"):
        return repr(value)
    if isinstance(value, (types.FunctionType, type)):
        if of_library(value) or id(value) in opened:
            return _name(value)
        opened.add(id(value))  # which may hold itself
        code = [_name(value), _written(value, opened)]
        opened.remove(id(value))
        return code
    if id(value) in opened:
        return _name(value)
    layers = isinstance(value, getattr(sys.modules.get("torch.nn"), "Module", ()))
    kinds = [kind for kind in dict.fromkeys(map(type, value.modules() if layers else [value])) if not of_library(kind)]
    own = [
        hashlib.sha256(json.dumps(plain(kind, opened)).encode()).hexdigest() for kind in kinds
    ]  # text within text grows
    opened |= {id(value), *map(id, kinds)}  # a class is written once
    held = object.__getstate__(value) if _opens(value) else None  # its __dict__ and what __slots__ hold
    if isinstance(held, dict):
        held = {key: one for key, one in held.items() if key != "__type_params__"}  # of functions since Python 3.12
    return [_name(value), *own, *([plain(held, opened)] if held else [])] if own or held else _name(value)


def _opens(value) -> bool:
    """Whether an object is known by what it holds: one that is no library's, but for those whose state is numbers."""
    if isinstance(value, (types.SimpleNamespace, argparse.Namespace)):
        return True
    return not (isinstance(value, type) or of_library(value) or hasattr(type(value), "state_dict"))


def _within(function):
    """What a library has wrapped, whose own code is not of interest; a wrapper of one's own is code, and holds what it wraps."""
    while isinstance(function, types.FunctionType) and "__wrapped__" in vars(function):
        of = function.__globals__
        if not elsewhere(of.get("__name__") or "", of.get("__file__")):
            break
        function = function.__wrapped__
    return function


def _write(thing, found: dict[int | Path, tuple[str, str]], opened: set[int]) -> None:
    thing = _within(thing)
    name, text = _name(thing), ""
    if id(thing) in found or of_library(thing):
        return
    found[id(thing)] = name, text  # before what it uses, which may use it
    if isinstance(thing, types.ModuleType):
        text = _text(thing, lambda: "")
        for other in _imported(thing, text):
            _write(other, found, opened)
    elif inspect.isclass(thing):
        for base in thing.__bases__:
            _write(base, found, opened)
        members = {key: value for key, value in vars(thing).items() if key not in PYTHON_S}
        if "__dataclass_fields__" in members:  # which writes methods, compiled anew by each Python
            files = {
                key: getattr(getattr(_within(one), "__code__", None), "co_filename", "") for key, one in members.items()
            }
            members = {key: one for key, one in members.items() if files[key] != "<string>" or key not in DATACLASS_S}
        text = _used(members, found, opened)
    elif isinstance(thing, types.FunctionType):
        closed = zip(thing.__code__.co_freevars, thing.__closure__ or ())
        names = _names(thing.__code__)
        used = {key: thing.__globals__[key] for key in names if key in thing.__globals__}
        own = {key for key in used if used[key] is sys.modules.get(key, used) and not of_library(used[key])}
        deep = [key for key in [*sys.modules] if key.partition(".")[0] in own and names.issuperset(key.split("."))]
        used |= {key: sys.modules[key] for key in deep}  # import package.module
        used |= {key: cell.cell_contents for key, cell in closed if cell != types.CellType()}
        used |= {"defaults": [thing.__defaults__, thing.__kwdefaults__]}
        used |= {"__wrapped__": thing.__wrapped__} if "__wrapped__" in vars(thing) else {}
        text = _text(thing, lambda: "".join(_compiled(thing.__code__)))
        for other, file in _files_named(text, Path(thing.__code__.co_filename)):
            for each, module in {file: other, **imported_files(file)}.items():
                found[each] = module, _unparsed(source_of(each))
        text += _used(used, found, opened)
    else:
        warnings.warn(f"The source of {name} is not known: a change of it cannot be noticed.", stacklevel=5)
    found[id(thing)] = name, text


def _imported(module: types.ModuleType, text: str) -> Iterator[types.ModuleType]:
    """Modules that one of one's own has imported, as far as the names that they are bound to are there."""
    for bound, names in imports(text):
        if bound in vars(module) or bound == "*":
            with contextlib.suppress(ImportError):  # another way to import it, which failed
                names = [importlib.util.resolve_name(name, module.__package__) for name in names]
            loaded = [*map(sys.modules.get, names), vars(module).get(bound)]
            yield from (other for other in loaded if isinstance(other, types.ModuleType))


def imported_files(file: Path) -> dict[Path, str]:
    """``{file: its module}`` of modules of one's own that a file imports, wherever in it, and that those import; none is imported for it."""
    found, waiting = {}, [file]
    while waiting:
        for name, other in _imports_of(one := waiting.pop(), one.stat().st_mtime_ns):
            if other != file and other not in found:
                found[other] = name
                waiting.append(other)
    return found


@functools.cache
def _imports_of(file: Path, changed: int) -> list[tuple[str, Path]]:
    return [*_files_named(source_of(file), file)]


def _files_named(text: str, importing: Path) -> Iterator[tuple[str, Path]]:
    """Names and files of the modules of one's own that a source imports."""
    for _, names in imports(text):
        yield from ((name, file) for name in names if (file := _file_of(name, importing)))


def source_of(file: Path) -> str:
    """What a file of Python says; of one that is none, its bytes."""
    try:
        with tokenize.open(file) as opened:
            return opened.read()
    except (SyntaxError, UnicodeDecodeError):
        return file.read_bytes().decode("latin-1")


def _file_of(name: str, importing: Path) -> Path | None:
    """Where a module of one's own lies that a file imports, as ``imports`` names it; None for a library's, and for what is none.
    Nothing is imported for it, no package that it is in either."""
    with contextlib.suppress(Exception):  # whatever is wrong with it is told where it is imported
        rest = name.lstrip(".")
        if level := len(name) - len(rest):
            base = importing.parents[level - 1].joinpath(*filter(None, rest.split(".")))
            return next((f for f in (base.with_name(f"{base.name}.py"), base / "__init__.py") if f.is_file()), None)
        if elsewhere(name, None):
            return None
        first, *deeper = itertools.accumulate(name.split("."), "{}.{}".format)
        spec = importlib.util.find_spec(first)
        for module in deeper:
            spec = importlib.machinery.PathFinder.find_spec(module, spec.submodule_search_locations)
        if spec.origin and spec.origin.endswith(".py") and not elsewhere(name, spec.origin):
            return Path(spec.origin)
    return None


def imports(text: str) -> Iterator[tuple[str, list[str]]]:
    """The name that each import of a source binds, and the modules that it may name, relative ones with their dots."""
    with contextlib.suppress(SyntaxError):  # no source but compiled code, or a lambda in the middle of something
        for node in ast.walk(ast.parse(text)):
            for one in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
                if isinstance(node, ast.Import):
                    names = [*itertools.accumulate(one.name.split("."), "{}.{}".format)]
                    yield one.asname or one.name.partition(".")[0], names
                else:
                    package = "." * node.level + (node.module or "")
                    yield one.asname or one.name, [package, f"{package}{'.' * bool(node.module)}{one.name}"]


def _used(values: Mapping, found: dict[int | Path, tuple[str, str]], opened: set[int]) -> str:
    """What a piece of code refers to: other code is written beside it, values are returned as text."""
    settings = {}
    for key, value in sorted(values.items()):
        value = value.func if isinstance(value, functools.cached_property) else value
        value = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if isinstance(value, property):
            for part in filter(None, (value.fset, value.fdel)):
                _write(part, found, opened)
            value = value.fget
        value = _within(value)
        if isinstance(value, (types.FunctionType, types.ModuleType, type)):
            _write(value, found, opened)
        else:
            settings[key] = plain(value, opened)
    return "\n" + json.dumps(settings, sort_keys=True)


def _text(thing, otherwise: Callable[[], str]) -> str:
    try:
        code = thing.__code__ if isinstance(thing, types.FunctionType) else thing  # its own, not of what it wraps
        source = textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError):
        return otherwise()
    return _unparsed(source)


def _unparsed(source: str) -> str:
    try:
        return ast.unparse(ast.parse(source))
    except SyntaxError:  # a lambda in the middle of something
        return source.strip()


def _compiled(code: types.CodeType) -> list[str]:
    constants = [one for one in code.co_consts if not isinstance(one, types.CodeType)]
    own = [code.co_code.hex(), repr(code.co_names), repr(constants)]
    return own + [text for one in _inner(code) for text in _compiled(one)]


def _names(code: types.CodeType) -> set[str]:
    return {*code.co_names}.union(*map(_names, _inner(code)))


def _inner(code: types.CodeType) -> list[types.CodeType]:
    return [one for one in code.co_consts if isinstance(one, types.CodeType)]


def _name(thing) -> str:
    thing = thing if hasattr(thing, "__qualname__") or isinstance(thing, types.ModuleType) else type(thing)
    return (
        f"{getattr(thing, '__module__', None) or ''}.{getattr(thing, '__qualname__', getattr(thing, '__name__', ''))}"
    )

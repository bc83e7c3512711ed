"""Which code of this package a recording, a table or a step of a study depends on, and a digest of each definition: what changed since.

What a definition depends on is what its text names: other definitions of its module, and what those names import. A digest
is of the syntax tree without docstrings and imports, so comments, layout, and where a definition stands count for nothing,
and it is the same on every Python. Standard library only.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import plugins
from .written import source_of

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.name
SCHEME = 5  # of these digests; those of another one cannot be compared

# no number depends on these modules: how files are written, what is checked or said, drawn by hand or sent elsewhere
NOT_RESULTS = {
    "names",
    "checks",
    "files",
    "fingerprints",
    "written",
    "runs/identity",
    "runs/loggers",
    "reporting/execute",
}
NOT_RESULTS |= {"study", "explorer", "cli"}  # whole rooms
# what decides a recording: these, and how a notebook's parameters become their settings; the images count by what they are
RECORDING = (("", "train"), ("", "build_model"), ("", "leave_one_out"))
RECORDING += tuple(("reporting/parameters", f"Training.{name}") for name in ("data", "student", "training"))
RECORDING += tuple(("reporting/parameters", f"Student.{name}") for name in ("split", "begun", "training", "taught_by"))
RECORDING += (("reporting/parameters", "Distill.taught_by"),)
RECORDING += (
    ("models/build", "mixer_any"),
    ("models/build", "vit_conv_any"),
)  # which timm knows, and nothing here names
# and what of it does not: settings count by their values, strategies say which edges are kept and which average teaches, the
# rest refuses, and speaks to those who wait
LOADER = "load_domains"  # of images, which count by what they are
NOT_RECORDED = {LOADER, "choose", "Settings", "rehearse", "strategies", "recording", "environment"}
NOT_RECORDED |= {
    "refuse_other_settings",
    "refuse_other_network",
    "card_of_export",
    "check_size",
    "check_recordable",
    "Run.check_split",
    "other_split",
    "_default_folder",
    "_diverged",
    "finished_at",
}
NOT_RECORDED |= {"_try_in_training", "_refuse_one_image", "Kept", "Series", "_kept", "_under"}
LIBRARIES = ("torch", "timm", "numpy", "Pillow")


@dataclass(frozen=True)
class Definition:
    """One top-level definition: its digest, what it names as (module, name), "" for its own, and the attributes it asks for.

    A method is one of its own, "Class.method", but for those that Python or a base class of another package may call.
    """

    text: str
    names: frozenset[tuple[str, str]]
    attributes: frozenset[str]
    methods: tuple[str, ...] = ()


@functools.cache
def of_recording(objectives: tuple[tuple[str, str], ...] = ()) -> dict[str, str]:
    """``{definition: digest}`` of the code that decides a recording with these objectives, each (module, name).

    Objectives of other packages are not followed.
    """
    ours = ((_inside(module), name) for module, name in objectives if _inside(module))
    return _digests((*RECORDING, *ours), frozenset(NOT_RECORDED))


@functools.cache
def of_notebook(file: Path) -> dict[str, str]:
    """``{definition: digest}`` of the code that a notebook calls, and of its own cells; outputs count for nothing."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    book = ast.parse("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    imported = _imports(book, "")
    nodes = [*_scoped(book)]
    start = {found for node, local in nodes for found in _named(node, local, imported, ())} | _described(file.stem)
    asked = _attributes([node for node, _ in nodes])
    said = json.dumps([[cell["cell_type"], "".join(cell["source"])] for cell in cells])
    return {**_digests(tuple(sorted(start)), frozenset({LOADER}), asked), file.name: _short(said)}


def _described(stem: str) -> set[tuple[str, str]]:
    """Where the parameters of a notebook are described: none of its cells names that class."""
    found = set()
    for node in _tree(module := "reporting/parameters").body:
        for call in getattr(node, "decorator_list", ()):
            if isinstance(call, ast.Call) and any(isinstance(a, ast.Constant) and a.value == stem for a in call.args):
                found.add((module, node.name))
    return found


def of_function(function: Callable) -> str:
    """A digest of the code of this package that one of its functions of a run, or a function within one, runs: its own and that
    of runs, not of what loads images or chooses averages, which count by what they are. "" for a function of elsewhere."""
    module, name = _inside(function.__module__), function.__qualname__.partition(".<locals>")[0]
    start = ((module, name), ("runs/run", "Run"))
    return _short(json.dumps(_digests(start, frozenset({LOADER, "choose"})))) if module is not None else ""


@functools.cache
def of_page(*, compares: bool) -> dict[str, str]:
    """``{definition: digest}`` of the code and the templates that make a page of an executed notebook, or of a comparison."""
    templates = {
        f.name: _short(f.read_text(encoding="utf-8")) for f in (PACKAGE / "reporting" / "templates" / "wakd").iterdir()
    }
    return {
        **_digests((("reporting/pages", "publish"),) if compares else (("reporting/render", "render"),)),
        **templates,
    }


def of_plugins(which: Iterable[str]) -> dict[str, str]:
    """``{plugin: digest}`` of the source of files and modules of one's own, and ``{imports of plugin: digest}`` of what those import of
    one's own, where there is such; comments and layout count for nothing."""
    found = {}
    for plugin in which:
        name, helpers = f"plugin {plugins.module_of(plugin)}", plugins.helpers(plugin)
        found[name] = _short("\n".join(_dump(ast.parse(source_of(file))) for file in plugins.files(plugin)))
        if helpers:
            found[IMPORTS + name] = _short(
                "\n".join(sorted(_dumped(file, file.stat().st_mtime_ns) for file in helpers))
            )
    return found


IMPORTS = "imports of "  # a plugin


@functools.cache
def _dumped(file: Path, changed: int) -> str:
    text = source_of(file)
    try:
        return _dump(ast.parse(text))
    except SyntaxError:  # which its importer may catch
        return text


@functools.cache
def of_libraries() -> dict[str, str]:
    """``{library: major.minor}`` of those that compute numbers."""
    return {name: ".".join(importlib.metadata.version(name).split(".")[:2]) for name in LIBRARIES}


@functools.cache
def _digests(
    start: tuple[tuple[str, str], ...], without: frozenset[str] = frozenset(), asked: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Digests of everything that is reached from some definitions, by name alone: where they stand counts for nothing."""
    found: dict[str, list[str]] = {}
    for module, name in reached(start, without, asked):
        found.setdefault(name, []).append(_definitions(module)[name].text)
    return {name: _short("".join(sorted(texts))) for name, texts in sorted(found.items())}


def reached(
    start: Iterable[tuple[str, str]], without: Iterable[str] = (), asked: Iterable[str] = ()
) -> set[tuple[str, str]]:
    """(module, definition) of all that some definitions depend on; a method once its class and an attribute of its name are, there
    or among those ``asked`` for."""
    todo, seen, attributes, methods = [], set(), {*asked}, {}
    for module, name in start:
        if not (found := _defined(module, name)):
            raise LookupError(f"{ROOT} does not define {name} in {module or 'what it exports'}.")
        todo += found
    while todo:
        module, name = place = todo.pop()
        if place in seen or name in without or {module, module.partition("/")[0]} & NOT_RESULTS:
            continue
        seen.add(place)
        definition, own = _definitions(module)[name], name.partition(".")[0]
        for where, what in definition.names:
            todo += _defined(where, what) if where else [(module, what)] if what != own else []
        new = definition.attributes - attributes
        attributes |= new
        todo += [place for attribute in new for place in methods.get(attribute, ())]
        for method in definition.methods:
            methods.setdefault(method, []).append((module, f"{name}.{method}"))
            todo += [(module, f"{name}.{method}")] * (method in attributes)
    return seen


@functools.cache
def _defined(module: str, name: str) -> list[tuple[str, str]]:
    """Where a name is defined: imports are followed, through packages too. [] for what is not of this package."""
    known, imported = _definitions(module), _imported(module)
    if name in known:
        return [(module, name), *[(module, _LOOSE)] * (_LOOSE in known)]
    other, there = imported.get(name, ("", ""))
    return _defined(other, there) if there else []


@functools.cache
def modules() -> tuple[str, ...]:
    """Every module of this package by its place, such as "averaging/schedule"."""
    files = (file.relative_to(PACKAGE).with_suffix("") for file in sorted(PACKAGE.rglob("*.py")))
    return tuple(file.as_posix().removesuffix("__init__").removesuffix("/") for file in files)


_LOOSE = "<statements>"  # of a module, beside its definitions


@functools.cache
def _definitions(module: str) -> dict[str, Definition]:
    imported, pieces = _imported(module), {}
    for statement in _tree(module).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
        names = [statement.name] if hasattr(statement, "name") else [t.id for t in targets if isinstance(t, ast.Name)]
        for name in names:
            pieces.setdefault(name, []).append(statement)
        words = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not (names or words or isinstance(statement, ast.Import | ast.ImportFrom) or _for_types(statement)):
            # what is done to a definition, such as filling a registry, is part of it
            done_to = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id in pieces}
            for name in done_to or {_LOOSE}:
                pieces.setdefault(name, []).append(statement)
    pieces.pop("__all__", None)
    found, methods = {}, {}
    for name, statements in list(pieces.items()):
        (first, *more) = statements
        if isinstance(first, ast.ClassDef) and not more and all(_ours(base, imported, pieces) for base in first.bases):
            own = [s for s in first.body if isinstance(s, ast.FunctionDef) and not s.name.startswith("__")]
            first.body = [s for s in first.body if s not in own] or [ast.Pass()]
            methods[name] = tuple(s.name for s in own)
            for method in own:
                pieces.setdefault(f"{name}.{method.name}", []).append(method)
    for name, statements in pieces.items():
        nodes = [inner for statement in statements for inner in _scoped(statement)]
        names = frozenset(n for node, local in nodes for n in _named(node, local, imported, pieces))
        names |= frozenset(("", other) for other in _kept_by(name, pieces))
        text = "\n".join(map(_dump, statements))
        found[name] = Definition(text, names, _attributes([node for node, _ in nodes]), methods.get(name, ()))
    return found


def _kept_by(registry: str, pieces: dict[str, list[ast.stmt]]) -> Iterator[str]:
    """What a decorator puts into a registry of its own module: whoever looks there may find it."""
    for name, (first, *_) in pieces.items():
        for decorator in getattr(first, "decorator_list", ()):
            asked = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(asked, ast.Attribute) and isinstance(asked.value, ast.Name) and asked.value.id == registry:
                yield name


def _ours(base: ast.expr, imported: dict, definitions: dict) -> bool:
    return isinstance(base, ast.Name) and (base.id in definitions or base.id in imported)


def _scoped(node: ast.AST, local: frozenset[str] = frozenset()) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """Every node below one, in no order, with the names that are variables of the functions around it."""
    waiting = [(node, local)]
    while waiting:
        node, local = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            local |= {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
            local |= {name for statement in ast.iter_child_nodes(node) for name in _assigned(statement)}
        yield node, local
        # without what a context is: a third of all nodes, and nothing in them
        waiting += [(child, local) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context)]


def _assigned(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _assigned(child)


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_SCOPES += (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _named(
    node: ast.AST, local: frozenset[str], imported: dict, definitions: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """What one node names: ("", a definition beside it) or (a module, a definition there)."""
    if isinstance(node, ast.Attribute):
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or root.id not in imported or root.id in local:
            return
        module = _module_of(node.value, imported)
        if module is not None and _module_of(node, imported) is None:
            yield module, node.attr
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in local:
        if node.id in definitions:
            yield "", node.id
        elif imported.get(node.id, ("", ""))[1]:
            yield imported[node.id]


def _module_of(node: ast.expr, imported: dict) -> str | None:
    """The module of this package that an expression is, such as ``wk.comparison``; None when it is another thing."""
    if isinstance(node, ast.Name):
        module, name = imported.get(node.id, (None, ""))
        return None if name else module
    if isinstance(node, ast.Attribute) and (above := _module_of(node.value, imported)) is not None:
        inner = f"{above}/{node.attr}".strip("/")
        if _file(inner):
            return inner
        module, name = _imported(above).get(node.attr, (None, ""))  # under another name, such as wk.comparison
        return None if name else module
    return None


def _attributes(nodes: list[ast.AST]) -> frozenset[str]:
    asked = [node.args[1] for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr"]
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return frozenset(named | {name.value for name in asked if isinstance(name, ast.Constant)})


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


@functools.cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    package = module if _file(module).name == "__init__.py" else module.rpartition("/")[0]
    return _imports(_tree(module), package)


def _for_types(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If) and isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING"
    )


def _file(name: str) -> Path | None:
    """The file of a module of this package; None where there is none."""
    whole = PACKAGE / name / "__init__.py" if name else PACKAGE / "__init__.py"
    return next((file for file in (PACKAGE / f"{name}.py", whole) if file.is_file()), None)


def _imports(tree: ast.AST, package: str) -> dict[str, tuple[str, str]]:
    """``{name: (module, name there)}`` of what is imported from this package anywhere in a file; "" is all of a module."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name: (_inside(a.name), "") for a in node.names if a.name == ROOT}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                above = package.split("/") if package else []
                base = "/".join(above[: len(above) - node.level + 1])
            elif _inside(node.module) is None:
                continue
            else:
                base = _inside(node.module)
            place = "/".join(filter(None, [base, (node.module or "").replace(".", "/") if node.level else ""]))
            for name in node.names:
                inner = "/".join(filter(None, [place, name.name]))
                found[name.asname or name.name] = (inner, "") if _file(inner) else (place, name.name)
    return found


def _inside(module: str) -> str | None:
    """A dotted module's place in this package; None for one of another package."""
    ours = module == ROOT or module.startswith(f"{ROOT}.")
    return module[len(ROOT) + 1 :].replace(".", "/") if ours else None


def _dump(node: object) -> str:
    """A syntax tree as text without docstrings and imports; what is empty is left out, for it differs between Pythons."""
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            first = value[0] if value else None
            words = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            value = [s for s in value[words:] if not isinstance(s, ast.Import | ast.ImportFrom)]
        if value is not None and value != []:
            parts.append(f"{name}={_dump(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]

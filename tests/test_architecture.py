"""The house: rooms on one staircase. A floor uses those below it, never one above; `python tests/test_architecture.py` prints it."""

import ast
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "wakd_kit"
# from the ground up: a room, or a file of the hall, imports from those before it and from itself
STAIRS = [
    "names",
    "written",
    "plugins",
    "checks",
    "files",
    "fingerprints",
    "statistics",
    "data",
    "averaging",
    "models",
    "objectives",
    "runs",
    "docstrings",
    "evaluation",
    "landscape",
]
STAIRS += ["results", "plots", "reporting", "explorer", "lessons", "study", "cli"]
DOORS = {"__init__", "__main__"}  # lists of names; they import what is asked for when it is asked for


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """{dotted name below the package: file}."""
    return {".".join(f.relative_to(package).with_suffix("").parts): f for f in sorted(package.rglob("*.py"))}


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """{module: modules of the package that it imports, wherever in the file}."""
    known, found = modules(package), defaultdict(set)
    for name, file in known.items():
        parts = name.split(".")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = [*parts[: len(parts) - node.level], *(node.module or "").split(".")]
            base = ".".join(part for part in base if part)
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                asked = [inner, base, f"{inner}.__init__", f"{base}.__init__".lstrip(".")]
                found[name] |= {next(target for target in asked if target in known)}
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_file_is_in_a_room_of_the_staircase():
    homeless = {name for name in modules() if room(name) not in {*STAIRS, *DOORS}}
    assert not homeless, f"no floor for {sorted(homeless)}; name it in STAIRS, or move it into the room it belongs to"


def test_imports_run_down_the_stairs():
    up = [
        f"{name} -> {target}"
        for name, targets in imports().items()
        if room(name) not in DOORS
        for target in targets
        if room(target) in DOORS or STAIRS.index(room(target)) > STAIRS.index(room(name))
    ]
    assert not up, "these imports climb: " + ", ".join(sorted(up))


def test_no_circle_of_imports():
    assert not circles(imports())


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected sets of more than one module."""
    order, seen, found = [], set(), []

    def walk(node: str, along: dict[str, set[str]], into: list[str]) -> None:
        if node in seen:
            return
        seen.add(node)
        for target in sorted(along.get(node, ())):
            walk(target, along, into)
        into.append(node)

    for node in sorted(edges):
        walk(node, edges, order)
    back = defaultdict(set)
    for node, targets in edges.items():
        for target in targets:
            back[target].add(node)
    seen.clear()
    for node in reversed(order):
        group: list[str] = []
        walk(node, back, group)
        found += [sorted(group)] if len(group) > 1 else []
    return found


def test_a_circle_and_a_climb_are_seen(tmp_path):
    for name, text in {"a": "from .b import x", "b": "from . import c", "c": "def f():\n    from .a import y"}.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert imports(tmp_path) == {"a": {"b"}, "b": {"c"}, "c": {"a"}}
    assert circles(imports(tmp_path)) == [["a", "b", "c"]]


def floors(edges: dict[str, set[str]]) -> int:
    """Longest chain of imports, counted in modules."""
    depth: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in depth:
            depth[name] = 0
            depth[name] = 1 + max((height(target) for target in edges.get(name, ())), default=0)
        return depth[name]

    return max(map(height, modules()))


def table() -> dict[str, object]:
    """What the house measures today."""
    edges, sizes, functions, bare, public = imports(), {}, {}, 0, 0
    for name, file in modules().items():
        text = file.read_text(encoding="utf-8")
        sizes[name] = text.count("\n")
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions[f"{name}.{node.name}"] = node.end_lineno - node.lineno + 1
        for node in [*tree.body, *(n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body)]:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                public, bare = public + 1, bare + (ast.get_docstring(node) is None)
    longest = max(functions, key=functions.get)
    largest = max(sizes, key=sizes.get)
    between = {(room(a), room(b)) for a, targets in edges.items() for b in targets if room(a) != room(b)}
    return {
        "files": len(sizes),
        "lines": sum(sizes.values()),
        "public definitions": public,
        "of these without a docstring": bare,
        "longest function": f"{longest}, {functions[longest]} lines",
        "longest file": f"{largest}, {sizes[largest]} lines",
        "import floors, in modules": floors(edges),
        "arrows between modules": sum(map(len, edges.values())),
        "arrows between rooms": len({e for e in between if not {*e} & DOORS}),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        PACKAGE = Path(sys.argv[1])
        modules.__defaults__ = imports.__defaults__ = (PACKAGE,)
    for what, value in table().items():
        print(f"{what:32} {value}")

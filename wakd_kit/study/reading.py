"""A study file as values: YAML whose names are text, what it extends, and paths made whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from ..files import path_of
from . import chains
from .places import SUFFIXES, StudyProblem, file_of


def values_of(path: Path, above: tuple[Path, ...] = (), named: Mapping | None = None) -> dict:
    """What a study file says, over what the one says that it extends; paths are whole.

    above  the files that extend it;  named  what these say, as far as it says which labels there are
    """
    if path.resolve() in above:
        raise StudyProblem(f"{path} extends itself, by way of {above[-1]}.")
    values = yaml_of(path, _read)
    if not isinstance(values, dict):
        raise StudyProblem(f"{path} should hold settings (name: value); it holds {type(values).__name__}.")
    named, under = {**{n: values[n] for n in ("students", "teacher") if n in values}, **(named or {})}, {}
    if base := _extended(values, path):
        under = values_of(base, (*above, path.resolve()), named)
    named = {**under, **named}
    students = named.get("students")
    labels = [*["teacher"] * (named.get("teacher") is not None), *(students if isinstance(students, dict) else ())]
    values = _beside({n: v for n, v in values.items() if n != "extends"}, path.parent, labels)
    under.pop("name", None)
    both = {n: under[n] | values[n] for n in COMPLETED if all(isinstance(v.get(n), dict) for v in (under, values))}
    return under | values | both


def _extended(values: dict, path: Path) -> Path | None:
    """The file that this one says it extends."""
    if (base := values.get("extends")) is None:
        return None
    base = path_of(str(base))
    return file_of(path.parent / base if base.suffix in SUFFIXES else base)


def contents_of(file: Path) -> dict[Path, str]:
    """A digest of what a study's file holds, and each that it extends, to tell whether one was edited; as far as they can be read."""
    found: dict[Path, str] = {}
    with contextlib.suppress(StudyProblem, OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        while file and file not in found:
            text = file.read_bytes()
            found[file] = hashlib.sha256(text).hexdigest()[:16]
            file = _extended(_read(text.decode("utf-8")), file)
    return found


COMPLETED = (
    "teacher",
    "common",
    "window_map",
    "landscape",
    "search",
)  # blocks of settings that a study takes over one by one


def _beside(values: dict, folder: Path, labels: Sequence[str]) -> dict:
    """What a study file says, with paths that are relative to its folder made whole, and labels of its students as they are;
    what is of no type is left alone."""

    def whole(path: str) -> str:
        return os.path.abspath(folder / path_of(path))

    def each(path: object) -> object:
        if isinstance(path, list):  # of which a search draws one
            return [each(one) for one in path]
        return whole(path) if path and isinstance(path, str) else path

    def resolved(block: object) -> object:
        if not isinstance(block, dict):
            return block
        own = {n: each(block[n]) for n in ("weights", "figures") if n in block}
        own |= {"objectives": with_files(block["objectives"], whole)} if "objectives" in block else {}
        for role in block.keys() & chains.ROLES:
            own[role] = chains.each_name(block[role], lambda name: chains.placed(name, folder, labels))
        if isinstance(block.get("others"), list):
            own["others"] = [whole(other) if isinstance(other, str) else other for other in block["others"]]
        return {**block, **own}

    found = {name: resolved(values[name]) for name in ("teacher", "common", "landscape") if name in values}
    if isinstance(values.get("students"), dict):
        found["students"] = {label: resolved(own) for label, own in values["students"].items()}
    if isinstance(search := values.get("search"), dict):
        own = search.get("instead")
        instead = {label: resolved(block) for label, block in own.items()} if isinstance(own, dict) else own
        found["search"] = search | {
            n: v for n, v in {"over": resolved(search.get("over")), "instead": instead}.items() if v
        }
    if isinstance(values.get("plugins"), list):
        found["plugins"] = [whole(p) if str(p).endswith(".py") else p for p in values["plugins"]]
    if isinstance(values.get("targets"), list):
        found["targets"] = ["+".join(map(str, t)) if isinstance(t, list) else t for t in values["targets"]]
    if values.get("mask"):
        found["mask"] = whole(str(values["mask"]))
    return values | found | ({"benchmark": placed(values["benchmark"], whole)} if "benchmark" in values else {})


def placed(benchmark: object, whole: Callable[[str], str]) -> object:
    """A benchmark with its path made whole; of a corrupted one, that of what is corrupted."""
    kind, colon, path = str(benchmark).partition(":")
    if kind == "corrupted":
        return f"{kind}:{placed(path, whole)}"
    return f"{kind}:{whole(path)}" if path else kind if colon else benchmark


def with_files(objectives: object, whole: Callable[[str], str]) -> object:
    """Objectives with the path of the ``embeddings`` that they learn from made whole."""
    if isinstance(objectives, list):
        return [with_files(one, whole) for one in objectives]
    file = objectives.get("embeddings") if isinstance(objectives, dict) else None
    return {**objectives, "embeddings": whole(file)} if file and isinstance(file, str) else objectives


def yaml_of(path: Path, read: Callable[[str], object]) -> object:
    """What ``read`` makes of a file's text. Raises ``StudyProblem`` for what is no YAML, naming the line."""
    try:
        return read(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise StudyProblem(f"{path} is no text in UTF-8: {error}.") from error
    except yaml.YAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise StudyProblem(f"{path}{place}, is no YAML: {getattr(error, 'problem', None) or error}.") from error


class _Loader(yaml.SafeLoader):
    """YAML with 1e-3 as a number, and a name that comes twice as an error: the first would be dropped silently."""

    def construct_mapping(self, node, deep=False):
        """A mapping as PyYAML makes it, whose names are text also where they are ``on`` or ``no``; raises for one that comes twice."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        # <<: what stands here goes before what it merges
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        names = [self.construct_object(key, deep=True) for key in own]
        for name, key in zip(names, own):
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(problem=f"{name!r} comes twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {  # a date is text, which says more in a sentence
    first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
NAMES = (
    "name",
    "targets",
    "baseline",
    "reference",
    "label",
    "by",
    "like",
    "answer",
    "average",
    "averages",
    "pairs",
    "against",
)  # settings whose values are names
TEXTS = ("title", "about")  # and these are text, of which null is none


def _read(text: str) -> object:
    """What a YAML file says; names of domains, students and strategies are the text that stands there: 0, 007, no, null."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            _name(root)
        return None if root is None else loader.construct_document(root)
    except RecursionError:
        raise yaml.constructor.ConstructorError(problem="an alias (*) stands within what it names itself") from None
    finally:
        loader.dispose()


def _name(node: yaml.Node, named: bool = False) -> None:
    if isinstance(node, yaml.ScalarNode) and named and node.value not in ("", "~"):
        node.tag = "tag:yaml.org,2002:str"
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        _name(item, named)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        _name(key, named)
        if key.value in ("students", "published", "instead") and isinstance(value, yaml.MappingNode):
            for student, own in value.value:
                _name(student, True)
                _name(own)
                _name_roles(own)
                for label, _ in own.value if key.value == "published" and isinstance(own, yaml.MappingNode) else ():
                    _name(label, True)
        else:
            said = key.value in TEXTS and value.tag != "tag:yaml.org,2002:null"
            _name(value, named or said or key.value in (*NAMES, "students"))
            if key.value == "common":
                _name_roles(value)


def _name_roles(student: yaml.Node) -> None:
    """A student's teacher and what it starts from are names, too; null is nobody, and settings beside ``of`` stay what they are."""
    for key, value in student.value if isinstance(student, yaml.MappingNode) else ():
        if key.value in (*chains.ROLES, "of"):
            for one in value.value if isinstance(value, yaml.SequenceNode) else (value,):
                _name_roles(one)
                if isinstance(one, yaml.ScalarNode) and one.tag != "tag:yaml.org,2002:null":
                    one.tag = "tag:yaml.org,2002:str"

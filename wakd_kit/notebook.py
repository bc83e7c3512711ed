"""Notebooks as functions: parameters checked against one typed description, executed through papermill.

papermill itself only warns about a name it does not know and checks no type, and a kernel that dies leaves a notebook that
looks finished. Here a frozen dataclass per notebook says what it accepts; it is checked before a kernel starts and again in
the notebook's second cell, and an executed notebook gets its final name only if every cell ran.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError

from .registry import Registry, did_you_mean

descriptions = Registry("notebook")


class ParameterError(ValueError):
    """Parameters that a notebook (or a settings file) does not take; the message says which and what fits."""


def notebook_parameters(stem: str) -> Callable[[type], type]:
    """Decorator: this dataclass describes the parameters of the notebook called ``stem``. Returns it unchanged."""
    return descriptions.register(name=stem)


def describe(which: str | Path) -> type:
    """The dataclass that describes a notebook, by its name or file. Raises ``UnknownName`` when nothing does."""
    from . import parameters as _shipped  # noqa: F401  (registers the shipped notebooks)

    return descriptions.get(Path(which).stem)


def make(cls: type, given: Mapping[str, object]):
    """An instance of a dataclass from plain values, each checked by name and type; ``ParameterError`` otherwise.

    A whole number widens to a float and a list to a tuple; a bool is no number, and text is never converted.
    """
    known = {f.name: f for f in fields(cls)}
    for name in given:
        if name not in known:
            raise ParameterError(did_you_mean("parameter", name, known))
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in given]
    if missing:
        raise ParameterError(f"{cls.__name__} needs {', '.join(missing)}.")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _fitted(name, value, hints[name]) for name, value in given.items()})


def _fitted(name: str, value: object, hint: object) -> object:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in options:
            try:
                return _fitted(name, value, option)
            except ParameterError:
                continue
        raise ParameterError(f"{name}={value!r}: expected {_spelled(hint)}, got {type(value).__name__}.")
    if origin is typing.Literal:
        if value not in options or isinstance(value, bool):
            raise ParameterError(f"{name}={value!r}: choose one of {', '.join(map(repr, options))}.")
        return value
    wanted = origin or hint
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is tuple and isinstance(value, list):
        value = tuple(value)
    fits = isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool)
    if not fits:
        raise ParameterError(f"{name}={value!r}: expected {_spelled(hint)}, got {type(value).__name__}.")
    if wanted in (list, tuple) and options:
        return wanted(_fitted(f"{name}[{i}]", item, options[0]) for i, item in enumerate(value))
    return value


def _spelled(hint: object) -> str:
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("None" if o is type(None) else _spelled(o) for o in options)
    return getattr(hint, "__name__", str(hint))


def parameters(which: str | type, namespace: Mapping[str, object]):
    """The checked parameters of the running notebook: ``p = parameters("02_distill", globals())`` in its second cell."""
    cls = which if isinstance(which, type) else describe(which)
    return make(cls, {f.name: namespace[f.name] for f in fields(cls) if f.name in namespace})


def execute(
    notebook: str | os.PathLike,
    out: str | os.PathLike,
    parameters: Mapping[str, object] | None = None,
    *,
    cwd: str | os.PathLike | None = None,
    env: Mapping[str, str] | None = None,
) -> Path:
    """Execute a copy of a notebook with these parameters; returns ``out``, which exists only if every cell ran.

    parameters  checked against the notebook's description before a kernel starts (``ParameterError``)
    cwd         folder the kernel starts in, default the notebook's
    env         environment variables for this kernel alone

    A notebook that fails is kept as ``<out>.failed.ipynb`` with the error in it, and the error is raised; so is one whose
    kernel was killed, with a first cell that says so. May be called from several threads at once.
    """
    notebook, out = Path(notebook), Path(out)
    if not notebook.is_file():
        raise FileNotFoundError(f"No notebook at {notebook}.")
    cls = describe(notebook)
    given = plain(make(cls, parameters or {}))
    _refuse_drift(notebook, cls)
    out.parent.mkdir(parents=True, exist_ok=True)
    part, failed = out.with_suffix(".part.ipynb"), out.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="wakd-") as sockets:
            papermill.execute_notebook(
                str(notebook),
                str(part),
                parameters=given,
                cwd=str(cwd or notebook.parent),
                progress_bar=False,
                kernel_name="python3",
                kernel_manager_class=_kernels(env, sockets),
            )
    except BaseException as error:
        if part.exists():
            if isinstance(error, DeadKernelError):
                _say_killed(part)
            os.replace(part, failed)
        raise
    os.replace(part, out)
    return out


def plain(instance) -> dict[str, object]:
    """The fields of a dataclass as JSON values, which is how papermill should get them."""
    return json.loads(json.dumps(asdict(instance)))


def recorded_parameters(out: str | os.PathLike) -> dict[str, object] | None:
    """The parameters an executed notebook ran with; None when there is no such notebook."""
    out = Path(out)
    if not out.is_file():
        return None
    return nbformat.read(out, as_version=4).metadata.get("papermill", {}).get("parameters")


def _refuse_drift(notebook: Path, cls: type) -> None:
    """The notebook's tagged cell must declare exactly what the dataclass describes, with the same defaults."""
    declared = papermill.inspect_notebook(str(notebook))
    described = plain(cls())
    if declared.keys() != described.keys():
        differing = sorted(declared.keys() ^ described.keys())
        raise ParameterError(f"{notebook.name} and {cls.__name__} disagree on the parameters {', '.join(differing)}.")
    for name, entry in declared.items():
        value = plain_literal(entry["default"])
        if value != described[name]:
            raise ParameterError(
                f"{notebook.name} has {name}={value!r} by default, {cls.__name__} {described[name]!r}."
            )


def plain_literal(text: str) -> object:
    """The value of a Python literal, lists for tuples, as JSON has it."""
    return json.loads(json.dumps(ast.literal_eval(text)))


def _kernels(env: Mapping[str, str] | None, sockets: str) -> type[AsyncKernelManager]:
    """Kernels of this very interpreter, over IPC where there is any: TCP ports race when several start at once."""

    class Kernels(AsyncKernelManager):
        def __init__(self, **settings):
            super().__init__(**settings)
            if os.name == "posix":
                self.transport = "ipc"
                self.ip = os.path.join(sockets, "kernel")  # its default is one name for all kernels of a folder
            # whatever kernel specs are installed on this machine, run the interpreter that has wakd_kit
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            self._kernel_spec = KernelSpec(argv=argv, language="python", display_name="Python 3")

        async def _async_start_kernel(self, **settings):
            settings["env"] = {**os.environ, **settings.get("env", {}), **(env or {})}
            await super()._async_start_kernel(**settings)

        start_kernel = _async_start_kernel

    return Kernels


def _say_killed(part: Path) -> None:
    """A killed kernel leaves every cell marked as completed; the copy that is kept says what happened."""
    book = nbformat.read(part, as_version=4)
    ran = [i for i, cell in enumerate(book.cells) if cell.cell_type == "code" and cell.execution_count]
    text = "**The kernel died** (killed, or out of memory)" + (f" after cell {ran[-1]} had started." if ran else ".")
    book.cells.insert(0, nbformat.v4.new_markdown_cell(text))
    book.metadata.setdefault("papermill", {})["exception"] = True
    nbformat.write(book, part)

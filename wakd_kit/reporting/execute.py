"""Notebooks as functions: parameters checked against one typed description, executed through papermill.

papermill itself only warns about a name it does not know and checks no type, and a kernel that dies leaves a notebook that
looks finished. Here a frozen dataclass says what a notebook accepts; it is checked before a kernel starts and again in the
notebook's second cell, which names it, and an executed notebook gets its final name only if every cell ran.
"""

from __future__ import annotations

import ast
import contextlib
import contextvars
import json
import logging
import os
import re
import sys
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from .. import plugins
from ..files import Stopped, room_for
from ..names import did_you_mean
from .parameters import ParameterError, describe, descriptions, make, plain
from .warm import KILL, Forked


def _new_to_papermill(record: logging.LogRecord) -> bool:
    """Whether a line of papermill's log is worth reading: not that a described parameter has no line in the notebook's cell."""
    return record.getMessage().removeprefix("Passed unknown parameter: ") not in _described.get()


_described = contextvars.ContextVar("parameters that the notebook which this thread executes has", default=frozenset())
logging.getLogger("papermill").addFilter(_new_to_papermill)


class NotebookFailed(Stopped):
    """A notebook that stopped before its last cell; the message says where, why, and which copy was kept."""


def execute(
    notebook: str | os.PathLike,
    out: str | os.PathLike,
    parameters: Mapping[str, object] | None = None,
    *,
    cwd: str | os.PathLike | None = None,
    env: Mapping[str, str] | None = None,
    checked: bool = False,
) -> Path:
    """Execute a copy of a notebook with these parameters; returns ``out``, which exists only if every cell ran.

    out         gets the ending .ipynb if it has none
    parameters  checked with the notebook's own values against its description before a kernel starts (``ParameterError``);
                a notebook that names no description takes any, with a warning
    cwd         folder the kernel starts in, default the notebook's
    env         environment variables for this kernel alone
    checked     the parameters are complete and were checked, by a plan, say; the kernel checks them in any case

    A notebook that stops early (an error, a killed kernel, ``sys.exit``) is kept as ``<out>.failed.ipynb`` with the error
    in it, and ``NotebookFailed`` is raised. An older ``out`` and its page are gone by then. May be called from several threads at once.
    The kernel is a fork of a warm process where one was started (``warm.started``), and is started here otherwise.
    """
    # absolute, because papermill reads and writes relative to a working directory that all threads share
    notebook, out = Path(notebook).absolute(), Path(out).absolute()
    if out.suffix != ".ipynb":
        out = out.with_name(f"{out.name}.ipynb")
    part, failed = out.with_suffix(".part.ipynb"), out.with_suffix(".failed.ipynb")
    if not notebook.is_file():
        raise FileNotFoundError(f"No notebook at {notebook}.")
    if notebook.resolve() in [file.resolve() for file in (out, part, failed)]:
        raise ValueError(f"{out} would take the place of {notebook}, which is executed; give the copy another name.")
    given = dict(parameters or {}) if checked else complete(notebook, parameters or {})
    cls = described_by(notebook)
    _described.set({f.name for f in fields(cls)} if cls else set())
    room_for(out, "executed notebook")
    for old in (out, part, failed, out.with_suffix(".html")):
        old.unlink(missing_ok=True)
    kernel: list[int] = []
    try:
        with tempfile.TemporaryDirectory(prefix="wakd-") as sockets:
            book = papermill.execute_notebook(
                *(
                    str(file).replace("{", "{{").replace("}", "}}") for file in (notebook, part)
                ),  # papermill formats them
                parameters=given,
                progress_bar=False,
                kernel_name="python3",
                language="python",
                start_timeout=300,  # of a full node, whose disk is far away
                shutdown_kernel="immediate",  # all cells are done; asking politely first interrupts, which it reports
                kernel_manager_class=_kernels(cwd or notebook.parent, env, sockets, kernel),
            )
        _refuse_early_end(book)
    except BaseException as error:
        reason = _keep(part, failed, error)
        if isinstance(error, Exception):
            kept = f" The copy is {failed}." if failed.exists() else ""
            raise NotebookFailed(f"{notebook.stem} {reason}{kept}") from error
        raise
    finally:
        _running.difference_update(kernel)
    os.replace(part, out)
    return out


_running: set[int] = set()  # process ids of the kernels that work for this process


def kill_running() -> None:
    """Kill the kernels of all notebooks that this process is executing: each then fails at once, and is kept as such."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, KILL)


def recorded_parameters(out: str | os.PathLike) -> dict[str, object] | None:
    """The parameters an executed notebook ran with; None when there is no such notebook."""
    out = Path(out)
    if not out.is_file():
        return None
    return json.loads(out.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("parameters")


def described_by(notebook: str | os.PathLike) -> type | None:
    """The dataclass that describes a notebook's parameters: ``parameters("NAME", globals())`` in one of its cells names it.

    None when no cell does and it has not the name of a described one. Raises ``FileNotFoundError`` without a notebook,
    ``UnknownName`` when its cell names what is not described.
    """
    notebook = Path(notebook)
    if not notebook.is_file():
        raise FileNotFoundError(f"No notebook at {notebook}.")
    code = "\n".join(source for _, source in _code(notebook))
    if named := re.search(r"\bparameters\(\s*['\"]([^'\"]+)['\"]\s*,\s*globals\(\)", code):
        return describe(named[1])
    return descriptions.get(notebook.stem) if notebook.stem in descriptions else None


def complete(notebook: str | os.PathLike, given: Mapping[str, object]) -> dict[str, object]:
    """The parameters that a notebook runs with: its own, and those given in their place, all of them checked.

    A copy may declare parameters that are not described, if a cell reads them; these are not checked.
    """
    notebook, cls = Path(notebook), described_by(notebook)
    if cls is None:
        warnings.warn(
            f"{notebook.name} names no description, as parameters('02_distill', globals()) does: its parameters are not "
            "checked before it runs.",
            stacklevel=3,
        )
        return dict(given)
    declared, described = _declared(notebook), {f.name for f in fields(cls)}
    for name in declared.keys() - described:
        if not _is_read(notebook, name):
            raise ParameterError(f"{notebook.name} never reads {name!r}. {did_you_mean('parameter', name, described)}")
    own = {name: value for name, value in {**declared, **given}.items() if name in declared.keys() - described}
    return own | plain(make(cls, {name: value for name, value in {**declared, **given}.items() if name not in own}))


def _code(notebook: Path) -> list[tuple[bool, str]]:
    """The code cells of a notebook: whether each is the one of its parameters, and what it says."""
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    return [("parameters" in cell.metadata.get("tags", []), cell.source) for cell in cells]


def _is_read(notebook: Path, name: str) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", source) for tagged, source in _code(notebook) if not tagged)


def _declared(notebook: Path) -> dict[str, object]:
    """What the tagged cell assigns, as Python reads it: papermill's own reader skips lines it cannot parse."""
    source = next((source for tagged, source in _code(notebook) if tagged), None)
    if source is None:
        raise ParameterError(f"{notebook.name} has no cell tagged 'parameters'.")
    declared = {}
    try:
        lines = ast.parse(source).body
    except SyntaxError as problem:
        text = (problem.text or "").strip()
        raise ParameterError(f"{notebook.name}: its parameters cell is no Python: {text!r}, {problem.msg}.") from None
    for line in lines:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        try:
            declared |= {target.id: ast.literal_eval(line.value) for target in targets}
        except (AttributeError, ValueError):
            text = ast.unparse(line)
            raise ParameterError(
                f"{notebook.name}: the parameters cell takes 'name = literal' lines, not {text!r}."
            ) from None
    return declared


def _kernels(
    cwd: str | os.PathLike, env: Mapping[str, str] | None, sockets: str, started: list[int]
) -> type[AsyncKernelManager]:
    """Kernels of this very interpreter, over IPC where there is any: TCP ports race when several start at once.

    The process id of a kernel is added to ``started``, and to those that ``kill_running`` knows.
    """

    class Kernels(AsyncKernelManager):
        def __init__(self, **settings):
            super().__init__(**settings)
            address = os.path.join(sockets, "kernel")  # the default is one name for all kernels of a folder
            if os.name == "posix" and len(address) < 90:  # a socket's address is limited to about 100 characters
                self.transport, self.ip = "ipc", address
            # whatever kernel specs are installed on this machine, run the interpreter that has wakd_kit
            argv = [*KERNEL, "-f", "{connection_file}"]
            if plugins.named() or (env or {}).get(plugins.NAMED):
                argv.append(f"--IPKernelApp.exec_lines={LOAD}")
            self._kernel_spec = KernelSpec(argv=argv, language="python", display_name="Python 3")
            self.kernel_id = str(uuid.uuid4())
            self.provisioner = _Provisioner(kernel_id=self.kernel_id, kernel_spec=self._kernel_spec, parent=self)

        async def start_kernel(self, **settings):
            # set here and not through papermill, which would change the folder of the whole process
            await super().start_kernel(**settings, cwd=str(cwd), env={**os.environ, **(env or {})})
            started.append(self.provisioner.pid)
            _running.add(self.provisioner.pid)

    return Kernels


LOAD = f"__import__({plugins.__name__!r}, fromlist=['here']).load_into(get_ipython())"  # plugins, before the first cell
KERNEL = (sys.executable, "-m", "ipykernel_launcher")


class _Provisioner(LocalProvisioner):
    """Forks a kernel from a warm process, if there is one."""

    async def launch_kernel(self, cmd: list[str], **settings):
        """Start the kernel and return how it is reached."""
        with open(os.devnull, "rb") as nothing:
            try:
                streams = (nothing.fileno(), 1, 2)
                given = {name: settings[name] for name in ("cwd", "env")}
                self.process = Forked(f"{Forked.__module__}:kernel", cmd[len(KERNEL) :], streams=streams, **given)
            except OSError:
                return await super().launch_kernel(cmd, **settings)
        self.pid = self.pgid = self.process.pid
        self.cwd = given["cwd"]
        return self.connection_info


class _EndedEarly(Exception):
    """sys.exit() in a cell: papermill takes it for success although later cells did not run."""


def _refuse_early_end(book: nbformat.NotebookNode) -> None:
    if any(cell.metadata.papermill.status != "completed" for cell in book.cells):
        raise _EndedEarly


def _keep(part: Path, failed: Path, error: BaseException) -> str:
    """Rename what was executed and return in words what happened, which the copy then says as well."""
    where, book = "", None
    with contextlib.suppress(OSError, ValueError):  # interrupted while it was written, or before
        book = nbformat.read(part, as_version=4)
        started = [c for c in book.cells if c.cell_type == "code" and c.metadata.papermill.start_time]
        where = f" at In [{len(started)}]" if started else ""
    if isinstance(error, PapermillExecutionError):
        reason = f"stopped{where}, {error.ename}: {error.evalue}"
    elif isinstance(error, DeadKernelError):
        reason = f"stopped{where}, its kernel died: killed, or out of memory"
    elif isinstance(error, _EndedEarly):
        reason = f"ended{where} by sys.exit, before its last cell"
    else:
        reason = f"stopped{where}, {type(error).__name__}: {error}"
    reason = reason.rstrip(" .:") + "."
    if book is not None:
        _explain(book, reason)
        nbformat.write(book, part)
    if part.exists():
        os.replace(part, failed)
    return reason


def _explain(book: nbformat.NotebookNode, reason: str) -> None:
    """papermill marks every cell of a dead kernel as completed; the copy that is kept says which ran, and why no more."""
    tag = "papermill-error-cell-tag"  # papermill's own, so that a rerun removes it
    book.cells = [c for c in book.cells if tag not in c.metadata.get("tags", [])]
    started = [c for c in book.cells if c.metadata.papermill.start_time]
    for cell in book.cells:
        cell.metadata.papermill.status = "completed" if cell.metadata.papermill.start_time else "pending"
    if started:
        started[-1].metadata.papermill.update(status="failed", exception=True)
    book.metadata.papermill.exception = True
    said = re.sub(r"([\\`*_{}<>|~$&]|\](?=[(\[]))", r"\\\1", reason)  # as it is, and no Markdown
    note = f"**This notebook is not finished.** It {said}"
    book.cells.insert(0, nbformat.v4.new_markdown_cell(note, metadata={"tags": [tag]}))

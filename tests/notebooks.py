"""Notebooks in this process: their cells, what they print and show, and the copies that are kept, without a kernel.

What a kernel adds is judged where one is started: tests/reporting/test_execute.py, tests/study/test_killed.py (01 to 03), tests/test_cli.py
(04) and tests/explorer/test_browser.py (10). Everywhere else starting an interpreter and importing torch takes most of the time.
"""

import contextlib
import io
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output

from wakd_kit.reporting import execute as notebook
from wakd_kit.reporting import render as report
from wakd_kit.reporting.execute import NotebookFailed


def execute(source, out, parameters=None, *, cwd=None, env=None, checked=False, least: Mapping = {}) -> Path:
    """Stands in for ``wakd_kit.reporting.execute.execute``. ``least`` has parameters that are smaller than those given."""
    source, out = Path(source), Path(out).absolute()
    given = dict(parameters or {}) if checked else notebook.complete(source, parameters or {})
    given |= {name: value for name, value in least.items() if name in given}
    book, namespace, clock = nbformat.read(source, as_version=4), {}, time.time()
    failed = out.with_suffix(".failed.ipynb")
    for old in (out, failed):
        old.unlink(missing_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pytest.MonkeyPatch.context() as here:
            here.chdir(cwd or source.parent)
            for cell in (cell for cell in book.cells if cell.cell_type == "code"):
                _run(cell, namespace, here)
                if "parameters" in cell.metadata.get("tags", []):
                    namespace.update(given)
    except Exception as error:
        nbformat.write(book, failed)
        raise NotebookFailed(f"{source.stem} stopped, {type(error).__name__}: {error}") from error
    book.metadata.papermill = {"parameters": given, "duration": time.time() - clock}
    nbformat.write(book, out)
    return out


def _run(cell, namespace: dict, here: pytest.MonkeyPatch) -> None:
    def display(shown) -> None:
        cell.outputs.append(new_output("display_data", data={"text/html": shown.data}))

    here.setattr(report, "display", display)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(cell.source, namespace)
    if said.getvalue():
        cell.outputs.append(new_output("stream", name="stdout", text=said.getvalue()))

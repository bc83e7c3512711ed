"""What explorer tests look at: two small runs on images of their own, and a private JupyterLab in a headless Chromium."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

import wakd_kit as wk

from .conftest import SMALL, patterns
from .forked import ROOT
from .waiting import MINUTES, until

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
SETTINGS = {
    "notification": {"fetchNews": "false", "checkForUpdates": False},  # its pop-up would cover the notebook
    "themes": {"theme": "JupyterLab Light"},
}
# a kernel that a process asks the session's warm process for, and waits for: what a notebook talks to is the same
KERNEL = [sys.executable, "-m", "tests.forked", "-f", "{connection_file}"]
READY = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.context.sessionContext.ready;
  await panel.context.sessionContext.session.kernel.info;
}"""  # the toolbar says idle before the kernel is connected, and what is run then is lost


def two_runs(folder: Path) -> Path:
    """Two runs of 12 steps with the targets north and east, as a folder; only the second has a window map."""
    for i, domain in enumerate(("north", "east", "south")):
        for n, (image, label) in enumerate(zip(*patterns(i, per_class=12, classes=2))):
            file = folder / "images" / domain / "ab"[label] / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    domains = wk.load_domains(f"folder:{folder / 'images'}", size=16)
    for target in ("north", "east"):
        split = wk.leave_one_out(domains, target, seed=0)
        student = wk.build_model("resnet10t", split.classes, seed=0, **SMALL)
        run = wk.train(
            student, split, steps=12, segment_length=2, batch_size=8, learning_rate=3e-2, batchnorm_batches=2,
            declare=[{"name": "wakd", "begin": 0.1}, "swad"], save_to=folder / "runs" / target / "student", device="cpu", progress=False,
        )  # fmt: skip
    wk.window_map(run, workers=1)
    return folder / "runs"


def chromium() -> str | None:
    """Where a Chromium is, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def browser() -> Iterator:
    """A headless Chromium; needs Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield started
        started.close()


@contextlib.contextmanager
def lab(folder: Path, *, theme: str = "JupyterLab Light") -> Iterator[str]:
    """The address of a JupyterLab that serves ``folder`` and keeps all of its own files in ``folder/.lab``."""
    own = folder / ".lab"
    names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    env = {**os.environ, **{f"JUPYTER_{name}": str(own / name) for name in names}, "IPYTHONDIR": str(own / "ipython")}
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(own / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces")}
    for name, values in (SETTINGS | {"themes": {"theme": theme}}).items():
        file = own / f"settings/@jupyterlab/apputils-extension/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    spec = own / "DATA_DIR" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    own_kernel = {"argv": KERNEL, "env": {"PYTHONPATH": str(ROOT)}, "language": "python"}
    spec.write_text(json.dumps({**own_kernel, "display_name": "Python 3 (ipykernel)"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    words += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    with open(own / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], env=env, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api", server, own / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    def there() -> bool:
        assert server.poll() is None, f"JupyterLab did not start:\n{log.read_text()[-2000:]}"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1):
            return True
        return False

    until(there, log.read_text)


def run_all(page, address: str, notebook: str) -> None:
    """Open a notebook in JupyterLab and start all of its cells."""
    page.goto(f"{address}/lab/workspaces/t/tree/{notebook}?reset", timeout=1000 * 60 * MINUTES)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=1000 * 60 * MINUTES)
    page.evaluate(READY)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")

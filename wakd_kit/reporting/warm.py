"""A process that has imported everything, and forks: a job or a kernel begins at once, in a process of its own.

Importing torch, timm, matplotlib and Jupyter takes seconds, more than most notebooks compute. The warm process imports them
once and runs nothing: what it forks has the state of a fresh interpreter, whatever others did before it.

    started()                                           -> {"WAKD_WARM": a socket}, the environment of those who may ask;
                                                           {} where there is no such thing
    Forked("wakd_kit.study.jobs:main", [file], env=...) -> a process that has begun, with ``wait`` and ``kill``

Who asks owns what it is given: it ends with its owner, and its owner learns how it ended. The warm process ends when all who
hold its ``owner`` pipe are gone and its last child is. On Linux; elsewhere a process is started for each, as everything falls back
to where no warm process answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ADDRESS = "WAKD_WARM"  # the environment variable that names the socket
HERE = {"TQDM_DISABLE": "1"}  # tqdm reads it when it is imported
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # which on Windows ends a process as hard


@contextlib.contextmanager
def started(
    *, before: str = f"{__name__}:everything", at_once: bool = True
) -> Iterator[tuple[dict[str, str], list[int]]]:
    """A warm process: the environment variable that names it, and the descriptors that keep it alive.

    before   "module:function" that it calls before it forks, ``at_once`` or when it is asked first
    Whoever inherits the descriptors keeps it as well. ({}, []) where there is none: processes are not forked on this system, or
    no socket fits into the folder of temporary files.
    """
    if not (sys.platform == "linux" and _pidfds()):
        yield {}, []
        return
    home = tempfile.mkdtemp(prefix="wakd-warm-")
    address, listening = os.path.join(home, "socket"), socket.socket(socket.AF_UNIX)
    try:
        listening.bind(address)
    except OSError:  # too long: about 100 characters fit; or a file system without sockets
        listening.close()
        os.rmdir(home)
        yield {}, []
        return
    ends, keeps = os.pipe()
    with listening:
        listening.listen(64)  # who asks before everything is imported waits
        fds = [listening.fileno(), ends]
        command = [sys.executable, "-m", __name__, address, *map(str, fds), before, "at once" * at_once]
        process = subprocess.Popen(
            command,
            pass_fds=fds,
            cwd=home,  # where nothing lies that could be imported in place of what is meant
            env={**os.environ, **HERE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches those who asked, and they tell
        )
    os.close(ends)
    try:
        yield {ADDRESS: address}, [keeps]
    finally:
        os.close(keeps)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it goes on while others keep it
            process.wait(1)


def _pidfds() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # an old kernel, or a sandbox
        return False
    return True


class Forked:
    """A child of the warm process that calls ``target``, "module:function", with a list of strings; used like a ``Popen``.

    It has this process's standard streams, and this environment and folder unless others are given. Raises ``OSError`` where
    no warm process answers, so that the caller starts one of its own.
    """

    stdin = stdout = stderr = None
    returncode: int | None = None

    def __init__(
        self,
        target: str,
        arguments: Sequence[str],
        *,
        cwd: str | os.PathLike | None = None,
        env: Mapping[str, str] | None = None,
        streams: Sequence[int] = (0, 1, 2),
    ):
        env = dict(os.environ if env is None else env)
        if not env.get(ADDRESS):
            raise OSError("no warm process was started")
        asked = {"target": target, "arguments": [*arguments], "cwd": str(cwd or os.getcwd()), "env": env}
        said = json.dumps(asked).encode()
        self._line = socket.socket(socket.AF_UNIX)
        try:
            self._line.connect(env[ADDRESS])
            socket.send_fds(self._line, [len(said).to_bytes(8, "big")], streams)
            self._line.sendall(said)
            self.pid = int.from_bytes(_whole(self._line, 8), "big", signed=True)
        except BaseException:
            self._line.close()
            raise

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it works."""
        if self.returncode is None:
            with selectors.DefaultSelector() as here:
                here.register(self._line, selectors.EVENT_READ)
                if here.select(0):
                    self.wait()
        return self.returncode

    def wait(self) -> int:
        """Wait for its end and return the exit status; -9 as well where the warm process died, which ends all it forked."""
        if self.returncode is None:
            try:
                self.returncode = int.from_bytes(_whole(self._line, 8), "big", signed=True)
            except OSError:
                self.returncode = -signal.SIGKILL
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    terminate = kill


def _whole(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (more := line.recv(size - len(found))):
            raise ConnectionResetError("the other end is gone")
        found += more
    return found


def kernel(arguments: Sequence[str]) -> None:
    """What a notebook talks to, ``python -m ipykernel_launcher`` with these arguments, in a process that has imported it."""
    import matplotlib
    from ipykernel import kernelapp

    # as where matplotlib is imported after a kernel has begun
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"]
    kernelapp.launch_new_instance([*arguments], parent_handle=os.getppid())


def serve(address: str, listening: socket.socket, owner: int, prepare: Callable[[], object]) -> None:
    """Fork for whoever asks, once prepared, until all owners are gone and nothing that was forked is left."""
    waiting = selectors.DefaultSelector()
    lines: dict[int, socket.socket] = {}  # {pid: who asked for it}
    owned = True

    def ask(line: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):  # who asked may be gone already
            size, streams, *_ = socket.recv_fds(line, 8, 3)
            try:
                asked = json.loads(_whole(line, int.from_bytes(size, "big")))
                sys.stdout.flush(), sys.stderr.flush()
                own, pid = os.getpid(), os.fork()
                if not pid:
                    for key in list(waiting.get_map().values()):
                        os.close(key.fd) if isinstance(key.fileobj, int) else key.fileobj.close()
                    line.close()
                    waiting.close()
                    _become(asked, streams, own)
            finally:
                for stream in streams:
                    os.close(stream)
            lines[pid], watch = line, os.pidfd_open(pid)
            waiting.register(watch, selectors.EVENT_READ, lambda: ended(pid, watch))
            try:
                line.sendall(pid.to_bytes(8, "big", signed=True))
                waiting.register(line, selectors.EVENT_READ, lambda: end(pid))
            except OSError:  # who asked is gone already; the line is closed once it has ended
                kill(pid)
            return
        line.close()

    def end(pid: int) -> None:  # its owner is gone
        waiting.unregister(lines[pid])
        kill(pid)

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):  # it has begun no session yet
            os.killpg(pid, signal.SIGKILL)

    def ended(pid: int, watch: int) -> None:
        waiting.unregister(watch)
        os.close(watch)
        _, status = os.waitpid(pid, 0)
        line = lines.pop(pid)
        with contextlib.suppress(KeyError):
            waiting.unregister(line)
        with line, contextlib.suppress(OSError):
            line.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))

    waiting.register(listening, selectors.EVENT_READ, lambda: (prepare(), ask(listening.accept()[0])))
    waiting.register(owner, selectors.EVENT_READ, lambda: None)
    try:
        while owned or lines:
            for key, _ in waiting.select():
                if key.fd == owner:
                    owned = False
                    waiting.unregister(owner)
                elif waiting.get_map().get(key.fd) == key:  # not one that was closed a moment ago
                    key.data()
    finally:
        shutil.rmtree(Path(address).parent, ignore_errors=True)


def _become(asked: dict, streams: Sequence[int], parent: int) -> None:
    """In the child: a process as if it had been started so; never returns."""
    status = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: with the warm process goes all it forked
        if os.getppid() != parent:  # it has gone already
            return
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        module, _, name = asked["target"].partition(":")
        Path("/proc/self/comm").write_text(f"wakd {name}"[:15])
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        sys.path[:0] = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
        sys.argv = [asked["target"], *asked["arguments"]]
        time.tzset()
        _as_begun()
        status = getattr(importlib.import_module(module), name)(asked["arguments"]) or 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else bool(ended.code)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(int(status))


def _as_begun() -> None:
    """What an interpreter does when it imports, and a fork does not: noise of its own, and as many threads as it is told."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()
        threads = os.environ.get("OMP_NUM_THREADS", "")
        if threads.isdigit() and int(threads) not in (0, torch.get_num_threads()):
            torch.set_num_threads(int(threads))


def everything() -> None:
    """Import what jobs and notebooks import, at once or later: all of this package but what is looked at by hand."""
    root = Path(__file__).parent.parent
    places = (file.relative_to(root).with_suffix("").parts for file in sorted(root.rglob("*.py")))
    own = [".".join([root.name, *place]) for place in places if place[0] not in ("explorer", "cli", "__main__")]
    for name in (*own, *ALSO):
        with contextlib.suppress(ImportError):  # of an extra that is not installed; who needs it says so
            importlib.import_module(name.removesuffix(".__init__"))


# what this package and those that it stands on import only when they are asked
ALSO = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "nbconvert",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
)


def main(given: Sequence[str]) -> None:
    """The warm process: its socket's address, the descriptors of that socket and of its owners' pipe, and what it calls when."""
    if sys.path[0] == os.getcwd():  # python -m puts it there, unless it was told not to; a kernel adds its own
        del sys.path[0]
    sys.modules.setdefault("rfc3987_syntax", None)  # see ``study.jobs``
    address, listening, owner, before, at_once = given

    @functools.cache
    def prepare() -> None:
        module, _, name = before.partition(":")
        getattr(importlib.import_module(module), name)()
        gc.collect()
        gc.freeze()  # what is never collected is never written, and stays shared

    if at_once:
        prepare()
    serve(address, socket.socket(fileno=int(listening)), int(owner), prepare)
    os._exit(0)  # to take everything apart again would take a second


if __name__ == "__main__":
    main(sys.argv[1:])

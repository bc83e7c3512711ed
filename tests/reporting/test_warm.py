"""What is forked from the warm process is as if it had been started: the same state, its own end, and its owner's."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest

from wakd_kit.reporting import warm
from wakd_kit.reporting.execute import NotebookFailed, execute
from wakd_kit.reporting.warm import ADDRESS, Forked

from ..forked import shared
from ..waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux" or not warm._pidfds(), reason="processes are not forked here")


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    """The environment that names the session's warm process, which forks for others as well."""
    return shared()


STATE = """import json, os, random, signal, sys, warnings
import matplotlib, numpy, torch
import matplotlib.pyplot as plt
from wakd_kit.data import domains
state = {
    "dtype": str(torch.get_default_dtype()),
    "threads": torch.get_num_threads(), "deterministic": torch.are_deterministic_algorithms_enabled(),
    "style": {k: str(v) for k, v in matplotlib.rcParams.items()}, "figures": plt.get_fignums(), "shown": matplotlib.get_backend(),
    "folder": os.getcwd(), "path": [p for p in sys.path if p != os.environ["CALLER"]], "own": sorted(set(sys.modules) & {"mine"}),
    "environment": {k: v for k, v in os.environ.items() if k not in ("WAKD_WARM", "JPY_PARENT_PID", "JPY_SESSION_NAME")},
    "filters": sum(f[0] == "error" for f in warnings.filters), "errors": numpy.geterr(), "names": sorted(set(dir()) & {"seen"}),
    "registered": sorted(domains.benchmarks), "interrupt": str(signal.getsignal(signal.SIGINT)), "argv": sys.argv[3:],
}
noise = [random.random(), float(numpy.random.rand()), float(torch.rand(()).item())]
json.dump([state, noise], open("STATE.json", "w"))"""

DISTURB = """import os, signal, sys, warnings
import matplotlib, numpy, random, torch
import matplotlib.pyplot as plt
import mine
from wakd_kit.data import domains
seen = 1
torch.manual_seed(5), numpy.random.seed(5), random.seed(5)
torch.set_default_dtype(torch.float64), torch.set_num_threads(3), torch.use_deterministic_algorithms(True)
matplotlib.rcParams["font.size"] = 30
plt.figure()
os.environ["LEFT"] = "behind"
os.chdir("/")
sys.path.insert(0, "/nowhere")
warnings.simplefilter("error")
numpy.seterr(all="raise")
domains.benchmarks.register(lambda path, *, cache: None, name="left behind")
signal.signal(signal.SIGINT, signal.SIG_IGN)"""


def notebook(folder: Path, *cells: str) -> Path:
    declared = nbformat.v4.new_code_cell("given = 1", metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[declared, *map(nbformat.v4.new_code_cell, cells)])
    nbformat.write(book, folder / "any.ipynb")
    return folder / "any.ipynb"


@pytest.mark.filterwarnings("ignore:any.ipynb names no description")
def test_a_notebook_finds_the_state_of_a_fresh_interpreter_whatever_ran_before(here, tmp_path):
    (tmp_path / "mine.py").write_text("value = 1")
    own = {"CALLER": str(Path.cwd()), "OMP_NUM_THREADS": "2", "ONLY": "here", "TQDM_DISABLE": "1"}

    def state(name: str, cell: str = STATE, **env):
        code = cell.replace("STATE.json", f"{name}.json")
        out = execute(notebook(tmp_path, code), tmp_path / name, {"given": 2}, cwd=tmp_path, env={**own, **env})
        if cell is STATE:
            return json.loads((tmp_path / f"{name}.json").read_text()), nbformat.read(out, as_version=4)

    (first, noise), book = state("first", **here)
    state("disturbed", DISTURB, **here)
    (second, other), _ = state("second", **here)
    (cold, _), cold_book = state("cold")
    assert first == second == cold and first["threads"] == 2 and first["environment"]["ONLY"] == "here"
    assert not {*noise} & {*other}  # what draws by itself draws anew
    papermill = [b.metadata.papermill for b in (book, cold_book)]
    assert papermill[0].keys() == papermill[1].keys() and papermill[0].parameters == {"given": 2}
    for warmed, started in zip(book.cells, cold_book.cells, strict=True):
        assert warmed.metadata.papermill.keys() == started.metadata.papermill.keys()
        assert warmed.metadata.papermill.status == started.metadata.papermill.status == "completed"
        assert warmed.metadata.keys() == started.metadata.keys() and warmed.metadata.tags == started.metadata.tags


@pytest.mark.filterwarnings("ignore:any.ipynb names no description")
@pytest.mark.parametrize(
    "cell, sentence",
    [
        ("raise ValueError('no such domain')", "stopped at In [4], ValueError: no such domain"),
        ("import os; os.kill(os.getpid(), 9)", "stopped at In [4], its kernel died: killed, or out of memory"),
        ("import os; os._exit(0)", "stopped at In [4], its kernel died: killed, or out of memory"),
        ("import sys; sys.exit()", "ended at In [4] by sys.exit, before its last cell"),
    ],
    ids=["error", "killed", "gone", "exit"],
)
def test_a_forked_notebook_that_stops_is_kept_with_its_reason(here, tmp_path, cell, sentence):
    with pytest.raises(NotebookFailed) as error:
        execute(
            notebook(tmp_path, "import torch; print('before')", cell, "1"), tmp_path / "out", {"given": 2}, env=here
        )
    assert str(error.value).startswith(f"any {sentence}.")
    book = nbformat.read(tmp_path / "out.failed.ipynb", as_version=4)
    assert sentence in book.cells[0].source and book.cells[-3].outputs[0].text == "before\n"
    assert ("Traceback" in str(book.cells[-2].outputs)) == ("ValueError" in cell)


def write_and_wait(arguments):
    """Forked by tests: says who it is, then works for as long as it is told, and ends as it is told."""
    file, seconds, status = arguments
    Path(file).write_text(f"{os.getpid()} {os.environ.get('WHO')} {os.getcwd()}")
    print("to whom it may concern", flush=True)
    time.sleep(float(seconds))
    return int(status)


WAITS = "tests.reporting.test_warm:write_and_wait"


def importable(env: dict) -> dict:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **env}


def ask(file: Path, seconds: float, status: int, env: dict, **settings) -> Forked:
    return Forked(WAITS, [str(file), str(seconds), str(status)], env=importable(env), **settings)


def seen(file: Path) -> str:
    return until(lambda: file.is_file() and file.read_text(), lambda: f"nothing in {file}")


def gone(process: int) -> bool:
    def there() -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    return until(there, lambda: f"process {process} is at work")


def test_who_asks_gets_streams_a_folder_an_environment_and_a_status(here, tmp_path):
    with open(tmp_path / "said", "wb") as said:
        streams = (said.fileno(), said.fileno(), said.fileno())
        child = ask(tmp_path / "one", 0, 7, {**here, "WHO": "me"}, cwd=tmp_path, streams=streams)
    assert child.wait() == 7 and child.poll() == 7
    assert (tmp_path / "one").read_text() == f"{child.pid} me {tmp_path}"
    assert (tmp_path / "said").read_text() == "to whom it may concern\n"
    child = ask(tmp_path / "two", 60, 0, here)
    assert child.poll() is None and seen(tmp_path / "two")
    child.kill()
    assert child.wait() == -signal.SIGKILL and gone(child.pid)
    with open(tmp_path / "wrong", "wb") as said:
        failing = Forked("tests.no_such:thing", [], env={**os.environ, **here}, streams=(said.fileno(),) * 3)
    assert failing.wait() == 1 and "ModuleNotFoundError" in (tmp_path / "wrong").read_text()
    with pytest.raises(OSError):
        ask(tmp_path / "nobody", 0, 0, {ADDRESS: ""})
    with pytest.raises(OSError):
        ask(tmp_path / "nobody", 0, 0, {ADDRESS: str(tmp_path / "nobody")})


OWNER = """import sys, time
from pathlib import Path
from tests.reporting.test_warm import ask
ask(Path(sys.argv[1]), 600, 0, {}).wait()"""


def test_what_was_forked_ends_with_its_owner_and_with_the_warm_process(here, tmp_path):
    env = {
        **os.environ,
        **here,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path / "owned")], env=env)
    child = int(seen(tmp_path / "owned").split()[0])
    owner.kill()
    owner.wait()
    assert gone(child)
    with warm.started(before="time:time") as (env, _):
        left = ask(tmp_path / "left", 600, 0, env)
        parent = int(Path(f"/proc/{left.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        assert left.wait() == -signal.SIGKILL and gone(left.pid)
        with pytest.raises(OSError):
            ask(tmp_path / "late", 0, 0, env)


def test_who_asks_and_is_gone_before_the_answer_costs_nobody_else_anything(tmp_path):
    with warm.started(before="time:time") as (env, _):
        with socket.socket(socket.AF_UNIX) as line:  # before the warm process has come as far as to look
            line.connect(env[ADDRESS])
            asked = {"target": WAITS, "arguments": [str(tmp_path / "first"), "60", "0"]}
            asked |= {"cwd": str(tmp_path), "env": importable(env)}
            said = json.dumps(asked).encode()
            socket.send_fds(line, [len(said).to_bytes(8, "big")], (0, 1, 2))
            line.sendall(said)
        assert [ask(tmp_path / str(status), 0, status, env).wait() for status in (3, 4)] == [3, 4]
    first = tmp_path / "first"
    assert not first.exists() or gone(int(first.read_text().split()[0]))


def test_where_temporary_files_lie_too_deep_for_a_socket_there_is_none(tmp_path, monkeypatch):
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with warm.started() as (env, keeps):
        assert (env, keeps, [*deep.iterdir()]) == ({}, [], [])


def test_the_warm_process_ends_when_nobody_keeps_it_and_its_last_child_has(tmp_path):
    with warm.started(before="time:time") as (env, _):
        child = ask(tmp_path / "slow", 6, 3, env)
        parent = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert seen(tmp_path / "slow")
    assert child.wait() == 3 and gone(parent) and not Path(env[ADDRESS]).parent.exists()

"""Where the time of the quickstart goes, part by part, and what a notebook costs when it is started and when it is forked.

    python benchmarks/quickstart.py reports/quickstart runs/quickstart     # parts of a study that was run, in seconds of its cells
    python benchmarks/quickstart.py --forked                               # each kind of notebook both ways, processor seconds

Parts are wall-clock of one run on however many cores it had: shares of one run, to compare with each other. The second form
trains few steps, so that it is the cost around them that is seen; both ways are in one run, notebook by notebook, in turn.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from wakd_kit.files import json_or_nothing
from wakd_kit.reporting import warm
from wakd_kit.study.jobs import Place, describe
from wakd_kit.study.plan import plan
from wakd_kit.study.specification import load_study

# the first that a cell's text has says what it spends its time on
PARTS = {
    r"wk\.train\(": "training",
    r"wk\.window_map\(": "window maps",
    r"wk\.choose\(run, p\.strategies": "searches, and the figure of curves",
    r"wk\.evaluate\(": "scores",
    r"length_sweep|averages_along": "averages along a run",
    r"agreement\.predictions|comparison\.collect": "what was recorded, read together",
    r"landscape\.|findings\.": "landscape",
    r"parameters\(\"": "imports",
    r"contact_sheet": "domains, and their figure",
    r"show": "tables and figures",
}


def parts(out: Path, runs: Path) -> Counter:
    """Seconds by part, over all notebooks of a finished study."""
    found = Counter()
    for file in sorted((out / "notebooks").rglob("*.ipynb")):
        book, name = json.loads(file.read_text(encoding="utf-8")), file.stem
        cells = 0.0
        for cell in book["cells"]:
            seconds, text = cell["metadata"].get("papermill", {}).get("duration") or 0.0, "".join(cell["source"])
            part = next((part for pattern, part in PARTS.items() if re.search(pattern, text)), "the rest")
            found[f"training: {name.rpartition('-')[2]}" if part == "training" else part] += seconds
            cells += seconds
        done = json_or_nothing(runs / "engine" / "done" / f"{name}.json")
        found["kernels, papermill, pages"] += max(0.0, done.get("seconds", cells) - cells)
    return found


def processor(warmed: int | None) -> float:
    """Processor seconds of all children that ended, and of a warm process with those that it forked."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = used.ru_utime + used.ru_stime
    if warmed:
        ticks = Path(f"/proc/{warmed}/stat").read_text().rpartition(")")[2].split()[11:15]
        spent += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return spent


def small(folder: Path) -> tuple[list, Place]:
    """The quickstart with one split and 20 steps, as jobs."""
    study = load_study("quickstart")
    short = {"steps": 20, "segment_length": 2}
    study = replace(study, targets=["sketch"], seeds=[0], teacher=study.teacher | short, common=study.common | short)
    study = replace(
        study, landscape=study.landscape | {"size": 2, "radii": [1.0], "directions": 2}, window_map={"grid": 2}
    )
    place = Place(folder / "report", folder / "runs")
    jobs = plan(study, place)
    describe(jobs, place)
    return jobs, place


@contextlib.contextmanager
def ways(folder: Path) -> Iterator[dict]:
    """{how: (environment, warm process)}: each notebook as a process of its own, and as a fork."""
    with warm.started() as (env, _):
        children = [int(p) for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
        warmed = next(p for p in children if "wakd_kit.reporting.warm" in Path(f"/proc/{p}/cmdline").read_text())
        yield {"started": ({}, None), "forked": (env, warmed)}


def both() -> None:
    with tempfile.TemporaryDirectory() as folder, ways(Path(folder)) as each:
        places = {how: small(Path(folder) / how) for how in each}
        warm.Forked("builtins:len", [], env={**os.environ, **each["forked"][0]}).wait()  # waits for all imports
        once = processor(each["forked"][1]) - processor(None)
        spent = {how: Counter() for how in each}
        for names in zip(*(jobs for jobs, _ in places.values())):
            for (how, (env, warmed)), job in zip(each.items(), names):
                place = places[how][1]
                before = processor(warmed)
                command = [sys.executable, "-m", "wakd_kit.study.jobs", str(place.file("jobs", job.name))]
                subprocess.run(
                    command, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, check=True, stderr=subprocess.DEVNULL
                )
                spent[how][job.name] = processor(warmed) - before
    print(f"{'processor seconds':34}{'started':>10}{'forked':>10}{'ratio':>8}")
    for name, seconds in [*spent["started"].items(), ("all", spent["started"].total())]:
        forked = spent["forked"][name] if name != "all" else spent["forked"].total()
        print(f"{name:34}{seconds:10.1f}{forked:10.1f}{forked / seconds:8.2f}")
    print(f"{'importing everything, once':34}{'':10}{once:10.1f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("report", type=Path, nargs="?", default=Path("reports/quickstart"))
    options.add_argument("runs", type=Path, nargs="?", default=Path("runs/quickstart"))
    options.add_argument("--forked", action="store_true", help="compare both ways to run a notebook")
    given = options.parse_args()
    if given.forked:
        both()
        return
    found = parts(given.report, given.runs)
    if not found:
        options.error(f"no notebooks in {given.report / 'notebooks'}: wakd report quickstart makes them.")
    for part, seconds in found.most_common():
        print(f"{part:42}{seconds:9.1f} s{seconds / found.total():8.1%}")
    print(f"{'all notebooks':42}{found.total():9.1f} s")


if __name__ == "__main__":
    main()

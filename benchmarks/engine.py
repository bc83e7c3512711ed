"""What the engine of studies costs: a dry run of 1,000 jobs, and seconds per job beside the notebook it executes.

python benchmarks/engine.py [--jobs 1000] [--noop 40]

The jobs that are timed through snakemake are done already, so that each is a process which reads its files and says so; a
job that works starts papermill and a kernel on top, which is timed on a notebook of one cell.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import yaml

from wakd_kit.fingerprints import SCHEME
from wakd_kit.study import jobs as job_files
from wakd_kit.study.jobs import Place
from wakd_kit.study.plan import plan
from wakd_kit.study.run import WORKFLOW
from wakd_kit.study.specification import load_study

STUDY = {"name": "many", "benchmark": "digits", "targets": "all", "teacher": {}, "students": {"KD": {}}}
STUDY |= {"landscape": {"students": []}}


def clock(what: str, command: list[str], per: int = 1) -> None:
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    took = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{what}: {done.stderr}")
    each = f", {1e3 * took / per:.0f} ms a job" if per > 1 else ""
    print(f"  {what:60} {took:6.1f} s{each}   load {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=1000)
    options.add_argument("--noop", type=int, default=40)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        place = Place(folder / "report", folder / "runs")
        file = folder / "many.yaml"
        file.write_text(yaml.safe_dump({**STUDY, "seeds": list(range(given.jobs // 8))}))
        where = ["--out", str(place.out), "--runs", str(place.runs)]
        jobs = plan(load_study(file), place)
        print(f"{len(jobs)} jobs")
        clock("wakd --help: starting Python and importing the package", [sys.executable, "-m", "wakd_kit", "--help"])
        clock(
            "wakd report --dry-run",
            [sys.executable, "-m", "wakd_kit", "report", str(file), "--dry-run", *where],
            len(jobs),
        )
        job_files.describe(jobs, place)
        engine = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile"), "--nolock"]
        engine += ["--directory", str(place.engine), "--config", "threads=1", "--rerun-triggers", "mtime"]
        clock("snakemake --dry-run", [*engine, "--dry-run", "--quiet", "all"], len(jobs))

        print(f"{given.noop} jobs that are done")
        few = Place(folder / "few" / "report", folder / "few" / "runs")
        done = [replace(job, after=()) for job in plan(load_study(file), few)[: given.noop]]
        job_files.describe(done, few)
        for job in done:
            for made in (few.executed(job), few.rendered(job), job.run / "settings.json"):
                made.parent.mkdir(parents=True, exist_ok=True)
                made.write_text("{}")
            record = {"scheme": SCHEME, **job_files._what(job, few), "files": job_files._files(job, few)}
            few.file("done", job.name).write_text(json.dumps({**record, "before": {}, "result": "same"}))
            assert job_files.reason(job, few) is None
        engine[engine.index("--directory") + 1] = str(few.engine)
        one = [sys.executable, "-m", "wakd_kit.study.jobs", str(few.file("jobs", done[0].name))]
        clock("one of them by itself", one)
        clock("all, by snakemake on 2 cores", [*engine, "--cores", "2", "--quiet", "all"], len(done))

        print("a notebook of one cell that imports the package")
        book = folder / "import.py"
        book.write_text(
            "import sys, time; sys.modules.setdefault('rfc3987_syntax', None); start = time.perf_counter()\n"
            "from wakd_kit.reporting import execute, render\n"
            "import nbformat, papermill\n"
            "print(time.perf_counter() - start)\n"
            f"nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('import wakd_kit as wk; wk.train')]), {str(folder / 'one.ipynb')!r})\n"
            f"papermill.execute_notebook({str(folder / 'one.ipynb')!r}, {str(folder / 'done.ipynb')!r}, kernel_name='python3')\n"
        )
        clock("importing papermill, starting a kernel, importing torch", [sys.executable, str(book)])


if __name__ == "__main__":
    main()

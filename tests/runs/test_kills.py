"""kill -9 at random moments of a training, of what measures a run, and of a study: the same command again, and nothing is lost.

    python -m tests.runs.test_kills 100 [seed] [training measuring study]

does the long form by hand and prints what was killed and what came of it.
"""

import collections
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import wakd_kit as wk
from wakd_kit import files
from wakd_kit.runs import store

from .. import forked
from .victims import SEGMENT, STEPS, small_split

MOST = (store.UNSAVED + 1) * SEGMENT  # steps since a checkpoint, and those of a segment while the next one is written


def begin(what: str, *given: Path):
    return forked.process(f"tests.runs.victims:{what}", *given)


def alone(what: str, *given: Path) -> float:
    """Seconds that a process takes which nobody kills."""
    process, clock = begin(what, *given), time.time()
    assert process.wait() == 0
    return time.time() - clock


def kill(process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
        process.kill()


def lines(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def kill_trainings(folder: Path, kills: int, seed: int) -> str:
    """Kills trainings anywhere, and every other time between the last step and the final name; raises where one is lost."""
    rng, whole, done, most, ends = random.Random(seed), folder / "whole", 0, 0, 0
    alone("train", whole, folder / "whole.log")
    tail = max(0.1, time.time() - (folder / "whole.log").stat().st_mtime)
    trainings = 0
    while done < kills:
        trainings += 1
        cut, attempt, until, at = folder / f"cut{trainings}", 0, min(kills, done + rng.randint(1, 4)), 0
        while not cut.exists() or attempt == 0:
            attempt += 1
            log = folder / f"cut{trainings}-{attempt}.log"
            process = begin("train", cut, log)
            if done < until:
                if rng.random() < 0.5:  # by steps, which a busy machine takes longer for
                    moment = rng.randint(0, STEPS - 1)
                    while process.poll() is None and (lines(log) or [0])[-1] < moment:
                        time.sleep(0.001)
                    forked.ended(process, rng.uniform(0, 0.02))  # some steps of a quiet machine
                else:  # its last moments
                    while process.poll() is None and STEPS not in lines(log):
                        time.sleep(0.005)
                    forked.ended(process, rng.uniform(0, tail))
                if process.poll() is None:
                    kill(process)
                    done += 1
                    ends += STEPS in lines(log)
            assert process.wait() in (0, -signal.SIGKILL), f"seed {seed}, {log}: exit {process.returncode}"
            trained = lines(log)
            if trained:
                again, at = at - trained[0] + 1, trained[-1]
                assert again <= MOST, f"seed {seed}, {log}: {again} steps trained again"
                most = max(most, again)
        alone("train", cut, folder / "last.log")  # the kill may have come after the final name
        assert not lines(folder / "last.log"), "a finished run was trained again"
        same_recordings(whole, cut)
    return (
        f"training: {done} kills ({ends} after the last step) of {trainings} runs, {trainings} of {trainings} finished, bit "
        f"for bit; at most {most} steps trained again after a kill, segments have {SEGMENT} and checkpoints come every {store.UNSAVED}"
    )


def same_recordings(whole: Path, cut: Path) -> None:
    names = [sorted(str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()) for run in (whole, cut)]
    assert names[0] == names[1] and not files.recording_folder(cut).exists(), set(names[0]) ^ set(names[1])
    for name in names[0]:
        if name.endswith((".safetensors", "index.json", "settings.json")):
            assert (whole / name).read_bytes() == (cut / name).read_bytes(), f"{name} of {cut}"
    tables = [pd.read_csv(run / "curves.csv").drop(columns="seconds") for run in (whole, cut)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def kill_measuring(folder: Path, kills: int, seed: int) -> str:
    """Kills one or both of one or two processes that measure one run; raises where a number is lost or another."""
    rng, whole, done, runs = random.Random(seed), folder / "measured", 0, 0
    alone("train", whole, folder / "measured.log")
    bare = shutil.copytree(whole, folder / "bare")
    seconds = alone("measure", whole)
    while done < kills:
        runs += 1
        cut, left = shutil.copytree(bare, folder / f"measured{runs}"), True
        until = min(kills, done + rng.randint(1, 4))
        while left:
            processes = [begin("measure", cut) for _ in range(rng.choice((1, 2)))]
            left = done < until
            for process in rng.sample(processes, rng.randint(1, len(processes))) if left else ():
                forked.ended(process, rng.uniform(0, seconds * len(processes)))
                if process.poll() is None:
                    kill(process)
                    done += 1
            for process in processes:
                assert process.wait() in (0, -signal.SIGKILL), f"seed {seed}: exit {process.returncode} at {cut}"
        same_measurements(whole, cut)
    return f"measuring: {done} kills of {runs} runs, {runs} of {runs} finished with the same numbers"


def same_measurements(whole: Path, cut: Path) -> None:
    assert not list(cut.rglob("*.part"))
    for name in ("scores.csv", "window_map.csv", "landscape/plane.csv"):
        tables = [files.read_table(run / name) for run in (whole, cut)]
        if name == "scores.csv":
            tables = [table.sort_values(["strategy", "domain"], ignore_index=True) for table in tables]
        pd.testing.assert_frame_equal(*tables, rtol=1e-6)
    runs = [wk.load_run(run, split=small_split()) for run in (whole, cut)]
    choices = [{name: np.asarray(c).tolist() for name, c in run.choices.items()} for run in runs]
    assert choices[0] == choices[1]
    kept = [dict(np.load(run / "predictions.npz")) for run in (whole, cut)]
    assert kept[0].keys() == kept[1].keys()
    inner = [np.load(next(run.glob("gram_*.npy"))) for run in (whole, cut)]
    np.testing.assert_allclose(*inner, rtol=1e-6)


def kill_study(folder: Path, kills: int, seed: int, tiny_study: str) -> str:
    """Kills whatever works at a study: its command, engine, jobs and kernels."""
    from ..study.test_killed import SHORT, finish, processes, quiet, scores, start, trained

    made = {}
    for name in ("calm", "killed"):
        made[name] = folder / name
        made[name].mkdir()
        (made[name] / "tiny.yaml").write_text(yaml.safe_dump({**yaml.safe_load(tiny_study), **SHORT}))
    clock = time.time()
    finish(made["calm"] / "tiny.yaml", made["calm"])
    seconds, rng = time.time() - clock, random.Random(seed)
    file, place, killed, recorded, studies = made["killed"] / "tiny.yaml", made["killed"], collections.Counter(), {}, 1
    while killed.total() < kills:
        engine, until = start(file, place), time.time() + rng.uniform(0.1, 1) * seconds
        while time.time() < until and engine.poll() is None:
            time.sleep(0.05)
        running = {kind: found for kind, found in processes(place).items() if found}
        if running and engine.poll() is None:
            kind = rng.choice(sorted(running))
            os.kill(rng.choice(running[kind]), signal.SIGKILL)
            killed[kind] += 1
        recorded |= {run: at for run, at in trained(place).items() if run not in recorded}
        if engine.poll() == 0 and killed.total() < kills:  # the next one from the start
            compare_studies(made["calm"], place, recorded, scores, trained)
            for kept in ("runs", "report"):
                shutil.rmtree(place / kept)
            recorded, studies = {}, studies + 1
    quiet(place)
    finish(file, place)
    compare_studies(made["calm"], place, recorded, scores, trained)
    return f"study: {killed.total()} kills ({dict(killed)}) of {studies} studies, {studies} of {studies} finished"


def compare_studies(calm: Path, place: Path, recorded: dict, scores, trained) -> None:
    assert recorded.items() <= trained(place).items() and len(trained(place)) == len(trained(calm))
    pd.testing.assert_frame_equal(scores(place), scores(calm), rtol=1e-6)
    assert not list((place / "runs").glob("*-s*/*.before-*"))


LONG = int(os.environ.get("WAKD_KILLS", "60"))
SLOW = [pytest.mark.slow, pytest.mark.skipif("WAKD_SLOW" not in os.environ, reason="long form; set WAKD_SLOW=1")]


@pytest.mark.parametrize("kills", [4, pytest.param(LONG, marks=SLOW)])
def test_a_training_killed_at_random_moments(tmp_path, kills):
    print(kill_trainings(tmp_path, kills, seed := time.time_ns() % 10_000), f"(seed {seed})")


@pytest.mark.parametrize("kills", [3, pytest.param(LONG // 2, marks=SLOW)])
def test_measuring_killed_at_random_moments(tmp_path, kills):
    print(kill_measuring(tmp_path, kills, seed := time.time_ns() % 10_000), f"(seed {seed})")


@pytest.mark.parametrize("kills", [pytest.param(LONG // 6, marks=SLOW)])  # the short form is tests/study/test_killed.py
def test_a_study_killed_at_random_moments(tmp_path, kills, tiny_study):
    pytest.importorskip("snakemake", reason="snakemake is not installed")
    print(kill_study(tmp_path, kills, seed := time.time_ns() % 10_000, tiny_study), f"(seed {seed})")


def main(kills: int, seed: int, kinds: list[str]) -> None:
    """The long form, a line for every dozen kills: six of ten are of trainings, three of measuring, one of a study."""
    from ..conftest import TINY, small_images

    shares = {"training": 6, "measuring": 3, "study": 1}
    with forked.share():
        for kind in kinds:
            left = max(1, round(kills * shares[kind] / sum(shares[kind] for kind in kinds)))
            while left > 0:
                number, left, seed = min(left, 12), left - 12, seed + 1
                with tempfile.TemporaryDirectory() as place:
                    folder = Path(place)
                    os.environ["WAKD_CACHE"] = str(folder / "cache")
                    if kind == "study":
                        said = kill_study(folder, number, seed, TINY.format(images=small_images(folder / "images")))
                    else:
                        said = {"training": kill_trainings, "measuring": kill_measuring}[kind](folder, number, seed)
                print(f"{said} (seed {seed})", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int((sys.argv[2:] or ["0"])[0]), sys.argv[3:] or ["training", "measuring", "study"])

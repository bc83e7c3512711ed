"""A study is checked before anything runs, ends in one page, and does nothing twice."""

import dataclasses
import json
import os
import re
import shutil
import signal
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

import wakd_kit as wk
from wakd_kit.cli import main
from wakd_kit.explorer.answers import Board
from wakd_kit.plots import one_run, surface
from wakd_kit.reporting import execute as notebook
from wakd_kit.reporting import pages
from wakd_kit.reporting import render as report
from wakd_kit.study import places, reading
from wakd_kit.study import plan as planning
from wakd_kit.study import run as study
from wakd_kit.study.jobs import Place
from wakd_kit.study.run import StudyProblem, load_study, plan, planned, run_study

from .. import notebooks
from ..conftest import patterns
from ..offline import offline_problems

CE = {"objectives": ["ce"], "teacher": None}


@pytest.fixture
def write(tiny_study, tmp_path):
    """Writes the tiny study with other settings and returns its file; a setting of None leaves it out."""

    def file(**settings) -> Path:
        values = {**yaml.safe_load(tiny_study), **settings}
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False))
        return path

    return file


@pytest.fixture
def executed(monkeypatch):
    """Notebooks run in this process, one by one, draw nothing of one run and are not printed; the list says which, in order."""
    names = []
    found = study.importlib.util.find_spec
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None if name == "snakemake" else found(name))
    monkeypatch.setattr(report, "show", lambda figure, alt, **_: None)
    for figures in (one_run, surface):  # ``finished`` has them all, drawn
        for name in [name for name, draws in vars(figures).items() if styled_here(draws, figures)]:
            monkeypatch.setattr(figures, name, lambda *_, **__: (None, ""))
    monkeypatch.setattr(pages, "BROWSERS", ())

    def execute(source, out, parameters, *, cwd, env, checked):
        names.append(out.stem)
        return notebooks.execute(source, out, parameters, cwd=cwd, checked=checked)

    monkeypatch.setattr(notebook, "execute", execute)
    return names


def styled_here(draws: object, figures: types.ModuleType) -> bool:
    return hasattr(draws, "__wrapped__") and draws.__module__ == figures.__name__


KD = {"objectives": [{"name": "kd"}]}  # the student of the tiny study


@pytest.fixture
def begun(finished, tmp_path) -> dict[str, Path]:
    """The folders of the tiny study, which was run, beside the file that ``write`` writes: what a test changes is done anew."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return {"out": tmp_path / "report", "runs": tmp_path / "runs"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"sedes": [0]}, "Unknown parameter 'sedes'. Did you mean 'seeds'?"),
        ({"seeds": None}, "Study needs seeds."),
        ({"seeds": []}, "a study needs at least one seed."),
        ({"seeds": ["a"]}, "seeds[0]='a': expected int, got str."),
        ({"seeds": [0, 1, 0]}, "a seed is listed twice in [0, 1, 0]."),
        ({"students": {}}, "a study needs at least one student."),
        ({"students": {"K/D": {}}}, "a student's name is text of letters, digits, + - = _ . and not 'teacher'"),
        ({"students": {"teacher": {}}}, "got 'teacher'."),
        ({"students": {"KD" * 61: {}}}, "a student's name is that of files, at most 120 bytes with room"),
        (
            {"students": {"KD": {}, "KD-d0": {}}, "search": {"over": {"steps": [6]}, "draws": 1, "students": ["KD"]}},
            "search: KD-d0 is what a draw of KD is called; give the student another name.",
        ),
        ({"students": {"KD": [1]}}, "student 'KD' takes settings (name: value), got [1]."),
        ({"students": {"KD": {"seed": 3}}}, "KD: seed cannot be set here; the study sets it for all."),
        ({"strategies": ["wakdd"]}, "Unknown strategy 'wakdd'. Did you mean 'wakd'?"),
        ({"strategies": [{"name": "wakd", "bgin": 0.5}]}, "Unknown setting of wakd 'bgin'. Did you mean 'begin'?"),
        ({"strategies": [{"name": "ema", "label": "last"}, "last"]}, "are called 'last'"),
        ({"baseline": "lst"}, "Unknown baseline 'lst'. Did you mean 'last'?"),
        ({"window_map": {"gird": 3}}, "Unknown setting of window_map 'gird'. Did you mean 'grid'?"),
        ({"window_map": {"students": ["KDD"]}}, "window_map: Unknown student 'KDD'. Did you mean 'KD'?"),
        ({"landscape": {"students": ["KDD"]}}, "landscape: Unknown student 'KDD'. Did you mean 'KD'?"),
        ({"landscape": {"targets": "north"}}, "landscape: targets is a list; got 'north'."),
        ({"landscape": {"strategies": ["last", "WAKDD"]}}, "Unknown label 'WAKDD'. Did you mean 'WAKD'?"),
        (
            {"landscape": {"strategies": ["last", {"name": "ema", "decay": 0.9}]}},
            "landscape: strategies are labels of the study's strategies; list {'name': 'ema', 'decay': 0.9} there",
        ),
        ({"also": {"05_objectives": "WAKD"}}, "also: 05_objectives takes settings (name: value), got 'WAKD'."),
        (
            {"also": {"05_objectives": {"runs": "x"}}},
            "also: 05_objectives: runs cannot be set here; the study sets it.",
        ),
        ({"answer": {"KDD": "WAKD"}}, "answer: Unknown student 'KDD'. Did you mean 'KD'?"),
        ({"answer": {"KD": "WAKDD"}}, "answer: Unknown label 'WAKDD'. Did you mean 'WAKD'?"),
        ({"answer": {"KD": "last"}}, "answer: Unknown label 'last'."),
        ({"reference": {"KD": ["KD"]}}, "Unknown reference ['KD']."),
        ({"landscape": {"students": [["KD"]]}}, "landscape: Unknown student ['KD']."),
        ({"answer": {"KD": ["WAKD"]}}, "answer: Unknown label ['WAKD']"),
        ({"reference": "KDD"}, "Unknown reference 'KDD'. Did you mean 'KD'?"),
        ({"reference": {"KD": "CEE"}}, "Unknown reference 'CEE'. Known: KD."),
        ({"landscape": {"run": "x"}}, "landscape: run cannot be set here; the study sets it for all."),
        ({"window_map": {"seeds": [7]}}, "window_map: the study has no seed 7; it has 0."),
        ({"landscape": {"seeds": [7]}}, "landscape: the study has no seed 7; it has 0."),
        ({"name": ""}, "name is that of a folder, of letters, digits, . _ -; got ''."),
        ({"name": "../../evil"}, "name is that of a folder, of letters, digits, . _ -; got '../../evil'."),
        ({"name": "/abs"}, "got '/abs'."),
        ({"name": ".."}, "got '..'."),
        ({"students": {"KD": {}, "KD.failed": {}}}, "got 'KD.failed'."),
        ({"students": {"KD.part": {}}}, "got 'KD.part'."),
        ({"students": {"KD.recording": {}}}, "got 'KD.recording'."),
        ({"students": {"KD.before-1": {}}}, "got 'KD.before-1'."),
        ({"students": {"KD ": {}}}, "got 'KD '."),
        ({"students": {"Teacher": {}}}, "got 'Teacher'."),
        ({"students": {"KD": {}, "kd": {}}}, "students 'kd' and 'KD' are one folder where capitals do not count"),
        ({"strategies": ["last", {"name": "ema", "label": "deployed"}]}, "a strategy is called 'deployed'"),
        (
            {"strategies": ["last", {"name": "ema", "label": "initial"}]},
            "a strategy is called 'initial', which is where",
        ),
        ({"strategies": []}, "a study needs at least one strategy."),
        ({"landscape": {"students": ["KD", "KD"]}}, "landscape: students: 'KD' is listed twice."),
        ({"reference": {"KD": ""}}, "Unknown reference ''."),
        ({"reference": {"KD": "KD"}}, "reference: KD is compared with another student, not with itself."),
        ({"answer": ["KD WAKD - KD last"]}, "answer lists pairs, which are named in also: {07_named_pairs"),
        ({"search": {"over": {1: [1]}}}, "search: over: parameters are names; got 1."),
        ({"search": {"over": {"steps": [6]}, "students": []}}, "search: students lists who is searched, at least one"),
        (
            {"search": {"over": {"only": [[1], [2]]}, "rule": "leave_one_source_out"}},
            "search: leave_one_source_out leaves sources out itself, and over says only.",
        ),
        ({"strategies": [7]}, "strateg"),
        ({"strategies": [{"begin": 0.5}]}, "strateg"),
        ({"targets": []}, "a study needs at least one target."),
        ({"common": None, "teacher": [1]}, "teacher=[1]: expected dict or None, got list."),
        ({"landscape": {"strategies": "last"}}, "landscape: strategies is a list; got 'last'."),
        ({"benchmark": 3}, "benchmark=3: expected str, got int."),
        ({"published": {"kd": {"WAKD": 86.6}}}, "published: Unknown student 'kd'."),
        *(
            (
                {"published": {"KD": {"last": n}}},
                "published: KD takes numbers from 0 to 100, in per cent (strategy: number)",
            )
            for n in ("much", True, 866, -1, float("nan"))
        ),
        ({"published": {"KD": {"WKD": 86.6}}}, "published: Unknown label 'WKD'."),
        ({"also": {"05_objectives": 3}}, "also: 05_objectives takes settings (name: value), got 3."),
    ],
)
def test_a_study_file_that_cannot_be_run_is_a_sentence(write, settings, sentence):
    with pytest.raises(StudyProblem, match=re.escape(sentence)) as error:
        load_study(write(**settings))
    assert "tiny.yaml: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("students: {KD: {}, KD: {}}", "line 1, is no YAML: 'KD' comes twice."),
        ("name: a\nseeds: [0", "line 2, is no YAML"),
        ("a: &a [*a]", "is no YAML: an alias (*) stands within what it names itself."),
        ("students: &x {KD: *x}", "is no YAML: an alias (*) stands within what it names itself."),
        ("- a", "should hold settings (name: value); it holds list."),
    ],
)
def test_a_file_that_is_no_yaml_is_a_sentence(tmp_path, text, sentence):
    (tmp_path / "tiny.yaml").write_text(text)
    with pytest.raises(StudyProblem, match=re.escape(sentence)):
        load_study(tmp_path / "tiny.yaml")


def test_a_student_without_a_name_is_a_sentence_and_a_date_is_text(write):
    file = write(students={"KD": {}, "nobody": {}}, strategies=["last", {"name": "wakd", "begin": 1234567}])
    said = file.read_text().replace("1234567", "2024-01-01")
    file.write_text(said.replace("nobody:", "~:"))
    with pytest.raises(StudyProblem, match="and not 'teacher'; got None"):
        load_study(file)
    file.write_text(said)
    with pytest.raises(StudyProblem, match=r"begin.*2024-01-01"):
        plan(load_study(file), HERE)


def test_an_unknown_study_is_named_with_those_there_are():
    with pytest.raises(StudyProblem, match=r"Unknown study 'quickstrat'\. Did you mean 'quickstart'\?"):
        load_study("quickstrat")
    with pytest.raises(StudyProblem, match=r"No study file at nowhere\.yaml"):
        load_study("nowhere.yaml")


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"teacher": None}, "KD: the objectives ['kd'] learn from a teacher, and there is none."),
        ({"students": {"KD": {"objectives": ["a2d"]}}}, "KD: The objectives ['a2d'] read attention of the student, whose output has none. timm's ViT"),
        ({"targets": "nroth"}, "Unknown target domain 'nroth'. Did you mean 'north'?"),
        ({"landscape": {"targets": ["soth"]}}, "Unknown target domain 'soth'. Did you mean 'south'?"),
        ({"landscape": {"sise": 3}}, "landscape-north-s0-KD: Unknown parameter 'sise'. Did you mean 'size'?"),
        ({"landscape": {"size": 1}}, "landscape-north-s0-KD: size is at least 2; got 1."),
        ({"landscape": {"strategies": ["WAKD"]}}, "landscape-north-s0-KD: Unknown label 'last'."),
        ({"students": {"KD": {}, "CE": {"learning_rat": 1}}}, "CE: Unknown parameter 'learning_rat'"),
        ({"students": {"KD": {}, "CE": {"learning_rate": "fast"}}}, "CE: learning_rate='fast': expected float, got str."),
        ({"students": {"KD": {}, "CE": {"objectives": ["cee"]}}}, "CE: Unknown objective 'cee'. Did you mean 'ce'?"),
        ({"students": {"KD": {}, "CE": {"model": "resnet11"}}}, "CE: Unknown model 'resnet11'."),
        ({"students": {"KD": {}, "CE": {"weights": "nowhere.pth"}}}, "nowhere.pth."),
        ({"students": {"KD": {}, "CE": {"steps": 0}}}, "CE: steps is a whole number >= 1; got 0."),
        ({"students": {"KD": {}, "CE": {"window_map_grid": "x"}}}, "CE: window_map_grid='x': expected int, got str."),
        ({"also": {"05_objektives": {}}}, "Unknown notebook over all recordings '05_objektives'. Did you mean '05_objectives'?"),
        ({"also": {"05_objectives": {"averge": "WAKD"}}}, "05_objectives: Unknown parameter 'averge'. Did you mean 'average'?"),
        ({"also": {"05_objectives": {"average": "WAKDD"}}}, "05_objectives: Unknown average 'WAKDD'. Did you mean 'WAKD'?"),
        ({"also": {"05_objectives": {"reference": "CE"}}}, "05_objectives: Unknown reference 'CE'."),
        ({"also": {"05_objectives": {"average": "last"}}}, "average and baseline are two labels; both are 'last'."),
        ({"also": {"05_objectives": {}}}, "05_objectives compares students over targets and seeds: at least two of each; got 1 on 2."),
        ({"benchmark": "folder:nowhere"}, "nowhere"),
        ({"benchmark": "fodler:x"}, "Unknown benchmark 'fodler'. Did you mean 'folder'?"),
        ({"image_size": 3}, "size is the side of an image in pixels, a whole number from 8 to 1024; got 3."),
        ({"students": {"KD": {"teacher": "nowhere"}}}, "No run at"),
        ({"students": {"KD": {"batch_size": 0}}}, "batch_size"),
        ({"students": {"KD": {"learning_rate": -1}}}, "learning_rate"),
        ({"students": {"KD": {"learning_rate": float("nan")}}}, "learning_rate"),
        ({"students": {"KD": {"most_stored": 0}}}, "most_stored"),
        ({"students": {"KD": {"warmup": -5}}}, "warmup"),
        ({"students": {"KD": {"freeze": ["bakcbone"], "batchnorm": "frozen"}}}, "KD: freeze: nothing that is trained begins with 'bakcbone'"),
        ({"students": {"KD": {"freeze": ["backbone"]}}}, "take batchnorm='frozen'"),
        ({"students": {"KD": {}, "CE": {**CE, "sampling": "gap"}}}, "CE: Sampling by gap compares the student with its teacher"),
        ({"students": {"KD": {}, "CE": {**CE, "sampling": "turns", "objectives": ["ce", "coral"]}}}, "take 'balanced'"),
        ({"students": {"KD": {}, "CE": {**CE, "only": [1], "objectives": ["ce", "coral"]}}}, "CE: The objectives ['ce', 'coral'] compare source domains"),
        ({"students": {"KD": {}, "CE": {**CE, "batch_size": 10_000}}}, "CE: batch_size 10000 is more than the"),
        ({"students": {"KD": {}, "CE": {**CE, "model_settings": {"in_chans": 1}}}}, "CE: resnet10t takes no float32 images of 16 px"),
        ({"students": {"KD": {}, "CE": {**CE, "model_settings": {"drop_rate": 2}}}}, "CE: resnet10t computes nothing with its settings"),
        ({"students": {"KD": {"objectives": ["simkd", "dho"]}}}, "simkd and dho each deploy a part of their own; list one."),
        ({"students": {"KD": {"objectives": [{"name": "ofa", "epsilon": [1, 2]}]}}}, "KD: epsilon of ofa is one number"),
        ({"students": {"KD": {"objectives": [{"name": "kd", "schedule": {"begin": 5, "end": 0.5}}]}}}, "A schedule ends after it begins"),
        ({"students": {"KD": {"teacher_as": {"name": "wakd", "begin": "x"}}}}, "KD: wakd begins at a step (int) or a fraction"),
        ({"students": {"KD": {"teacher_as": {"name": "wakd", "begin": 100}}}}, "A strategy begins beyond the 6 steps of the run"),
        ({"students": {"KD": {"teacher_as": {"name": "best_val", "by": "val_kd_loss"}}}}, "KD: best_val finds nothing to average"),
        ({"students": {"KD": {}, "CE": {**CE, "deploy": {"name": "best_val", "by": "val_kd_loss"}}}}, "has no 'val_kd_loss' curve"),
        ({"targets": [["north", "east", "south"]], "landscape": None}, "leaves no source domain"),
        ({"strategies": ["last", {"name": "power", "sigma_rel": 1e-300}]}, "power takes no such numbers: {'sigma_rel': 1e-300}"),
        ({"also": {"08_beyond_accuracy": {"strategies": ["last", "x"]}}}, "08_beyond_accuracy: Unknown strategies 'x'"),
        ({"also": {"08_beyond_accuracy": {"strategies": ["WAKD"]}}}, "strategies hold the baseline 'last'; got ['WAKD']."),
        ({"also": {"06_when_averaging_helps": {"averages": ["WAKD", "WAKD"]}}}, "averages are labels, each of them once"),
        ({"landscape": {"corners": ["initial", 0, "last"]}}, "corners are three different points"),
        ({"landscape": {"corners": [6, "WAKD", "last"]}}, "corners are three different points"),
        ({"landscape": {"others": [None]}}, "others[0]=None: expected str"),
        ({"seeds": [10**20], "window_map": None}, "seed is a whole number >= 0 and below 2^63"),
        ({"seeds": [-1], "window_map": None}, "seed"),
        ({"window_map": {"grid": -1}}, "window_map_grid"),
        ({"landscape": {"margin": -1.0}}, "margin"),
        ({"landscape": {"others": ["nowhere"]}}, "landscape: others are folders of runs; there is none at"),
        ({"landscape": {"others": ["runs/east-s0/KD"]}}, "runs/east-s0/KD left out east, not north; a line has one unseen domain: take"),
        ({"landscape": {"corners": ["last", "last", "last"]}}, "corners"),
        ({"landscape": {"corners": [9, "last", "initial"]}}, "landscape-north-s0-KD: corners: no segment ends at step 9; the nearest that does ends at 6, the last at 6."),
        ({"landscape": {"corners": [-2, "last", "initial"]}}, "landscape-north-s0-KD: corners: no segment ends at step -2;"),
        ({"landscape": {"targets": ["south"]}}, "tiny: landscape: targets: south is not left out here; choose of north, east, such as landscape: {targets: [north]}."),
        ({"strategies": ["last", {"name": "wakd", "begin": 7}]}, "A strategy begins beyond the 6 steps of the run"),
        ({"strategies": ["last", {"name": "swad", "n_converge": 0}]}, "n_converge"),
        ({"strategies": ["last", {"name": "swad", "n_tolerance": "x"}]}, "n_tolerance"),
        ({"strategies": ["last", {"name": "sma", "start": "x"}]}, "sma begins at a step (int) or a fraction of the run"),
    ],
)  # fmt: skip
def test_what_cannot_train_or_average_is_named_before_anything_runs(write, executed, tmp_path, settings, sentence):
    with pytest.raises(StudyProblem, match=re.escape(sentence)):
        run_study(write(**settings), out=tmp_path / "report", runs=tmp_path / "runs")
    assert not executed and [f.name for f in tmp_path.iterdir()] == ["tiny.yaml"]


HERE = Place(Path("/report"), Path("/runs"))


def test_names_in_a_study_file_are_text(tiny_study, tmp_path, monkeypatch):
    images = tmp_path / "images"
    for name in ("0", "015", "no", "null", "1e3"):
        shutil.copytree(Path(yaml.safe_load(tiny_study)["benchmark"].partition(":")[2]) / "north", images / name)
    head, tail = tiny_study.split("targets: [north, east]")
    text = f"{head}targets: [0, 015, no, null, 1e3]{tail}".replace("students:\n  KD:", "students:\n  007:")
    text = text.replace("label: WAKD", "label: 0.9").replace("students: [KD]", "students: [007]")
    (tmp_path / "tiny.yaml").write_text(text.replace("targets: [north]", "targets: [015]"))
    (tmp_path / "tiny.yaml").write_text(
        re.sub("benchmark: .*", "benchmark: folder:images", (tmp_path / "tiny.yaml").read_text())
    )
    read = load_study(tmp_path / "tiny.yaml")
    assert read.targets == ["0", "015", "no", "null", "1e3"] and list(read.students) == ["007"]
    assert read.seeds == [0] and read.strategies[1] == {"name": "wakd", "label": "0.9", "begin": 0.5}
    names = [job.name for job in plan(read, HERE)]
    assert {"0-s0-teacher", "null-s0-007", "landscape-015-s0-007"} <= set(names)


def test_students_are_text_where_they_draw_from_a_range_of_their_own_and_null_is_no_title(tiny_study, tmp_path):
    study = yaml.safe_load(tiny_study)
    study |= {"search": {"draws": 1, "over": {"learning_rate": [0.1]}, "instead": {7: {"learning_rate": [0.2]}}}}
    study |= {
        "students": {7: study["students"]["KD"]},
        "title": "Theirs",
        "landscape": {"students": []},
        "window_map": {},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "tiny.yaml").write_text("extends: base.yaml\ntitle: null\nabout: ~\n")
    read = load_study(tmp_path / "tiny.yaml")
    assert list(read.students) == ["7"] == list(read.search["instead"]) and (read.title, read.about) == ("", "")
    (tmp_path / "tiny.yaml").write_text("extends: base.yaml\ntitle: 2026\nabout: no\n")
    assert (load_study(tmp_path / "tiny.yaml").title, load_study(tmp_path / "tiny.yaml").about) == ("2026", "no")


def test_who_teaches_is_a_name_and_null_is_nobody(tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        "extends: quickstart\nteacher: {steps: 60}\nstudents:\n  1: &plain {teacher: null, learning_rate: 0.5, teacher_as: {name: sma, start: 0.1}}\n"
        "  007: {teacher: 1}\n  2: {teacher: {of: [1, 007, teacher], weigh: uniform}, start: {of: 1, by: channels}}\n"
        "  3: {<<: *plain, learning_rate: 0.1}\nreference: 007\nanswer: {007: WAKD}\n"
    )
    told = reading.values_of(tmp_path / "tiny.yaml")
    students = told["students"]
    assert students["1"] == {"teacher": None, "learning_rate": 0.5, "teacher_as": {"name": "sma", "start": 0.1}}
    assert students["007"] == {"teacher": "1"} and told["answer"] == {"007": "WAKD"} and told["teacher"]["steps"] == 60
    assert students["2"]["teacher"] == {"of": ["1", "007", "teacher"], "weigh": "uniform"}
    assert students["2"]["start"] == {"of": "1", "by": "channels"}
    assert students["3"] == students["1"] | {"learning_rate": 0.1}, "what stands there goes before what is merged"


def test_a_setting_that_yaml_takes_for_yes_is_the_setting(tiny_study, tmp_path):
    values = yaml.safe_load(tiny_study)
    text = "students:\n  KD: {second: {name: cutmix}, objectives: [{name: kd, on: mixed}, {name: ce, label_smoothing: 0.1}]}\n"
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**values, "students": None}).replace("students: null\n", text))
    assert load_study(tmp_path / "tiny.yaml").students["KD"]["objectives"][0] == {"name": "kd", "on": "mixed"}


def test_paths_in_a_study_are_relative_to_its_file_and_its_name_is_the_file_s(tiny_study, tmp_path, monkeypatch):
    values = yaml.safe_load(tiny_study)
    shutil.copytree(values["benchmark"].partition(":")[2], tmp_path / "a" / "shapes")
    del values["name"]
    values |= {"benchmark": "folder:shapes", "landscape": {"students": []}}
    values["common"] = {**values["common"], "weights": "w.safetensors"}
    (tmp_path / "a" / "mine.yaml").write_text(yaml.safe_dump(values))
    student = wk.build_model("resnet10t", 2, seed=0, **values["teacher"]["model_settings"])
    save_file(student.model.state_dict(), tmp_path / "a" / "w.safetensors")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    read = load_study("../a/mine.yaml")
    teacher, student = plan(read, HERE)[:2]
    assert read.name == "mine" and teacher.parameters["benchmark"] == f"folder:{tmp_path / 'a' / 'shapes'}"
    assert student.parameters["weights"] == str(tmp_path / "a" / "w.safetensors")
    assert student.given["weights"].startswith("w.safetensors (SHA-256 ") and student.given["images"]


def test_embeddings_and_figures_are_beside_the_file_and_each_landscape_has_a_folder(
    write, tiny_study, tmp_path, monkeypatch
):
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    domains = wk.load_domains(yaml.safe_load(tiny_study)["benchmark"], size=16)
    images = {name: np.ones((len(domains[name]), 4), np.float32) for name in domains}
    wk.objectives.write_embeddings(tmp_path / "e.safetensors", images, np.eye(2, 4), classes=domains.classes)
    vl2v = {"name": "vl2v", "embeddings": "e.safetensors"}
    looked_at = {"students": ["A", "B"], "figures": "figs", "corners": [4, "last", "WAKD"]}
    common = {**yaml.safe_load(tiny_study)["common"], "objectives": [vl2v], "teacher": None}
    students = {"A": {}, "B": {"objectives": [{**vl2v, "share": 0.2}]}}
    file = write(teacher=None, common=common, students=students, landscape=looked_at, window_map=None)
    jobs = plan(load_study(file), HERE)
    found = [one for job in jobs if job.records for one in job.parameters["objectives"]]
    assert [one["embeddings"] for one in found] == [str(tmp_path / "e.safetensors")] * 4
    figures = [job.parameters["figures"] for job in jobs if job.kind == "04_landscape"]
    names = [f"landscape-{target}-s0-{label}" for target in ("north", "east") for label in "AB"]
    assert figures == [str(tmp_path / "figs" / name) for name in names]


def test_two_studies_of_one_name_do_not_take_over_each_other(write, executed, begun, tmp_path, monkeypatch, capsys):
    for kind, folder in {"reports": begun["out"], "runs": begun["runs"]}.items():
        (tmp_path / "kit" / kind).mkdir(parents=True)
        folder.rename(tmp_path / "kit" / kind / "tiny")
    monkeypatch.setattr(places, "home", lambda: tmp_path / "kit")
    file = write(targets=["north"], landscape={"students": []})
    (tmp_path / "kit" / "runs" / "tiny" / "engine" / "study.json").unlink()
    run_study(file)
    assert executed == ["03_compare"]
    other, twin, moved = (tmp_path / place for place in ("other/tiny.yaml", "other/twin.yaml", "moved/tiny.yaml"))
    for place in (other, twin, moved):
        place.parent.mkdir(exist_ok=True)
        shutil.copy(file, place)
    assert planned(other)[-1] == "tiny: 3 of 3 notebooks to do", "beside another file there is another place"
    engine = other.parent / "runs" / "tiny" / "engine"
    engine.mkdir(parents=True)
    (engine / "study.json").write_text(json.dumps({"file": str(other)}))
    for refused in (run_study, planned):
        with pytest.raises(StudyProblem, match=r"holds the recordings of .*tiny\.yaml, which is called 'tiny' as well"):
            refused(twin)
    study = yaml.safe_load(twin.read_text()) | {"name": "another"}
    other.write_text(yaml.safe_dump(study))  # which was given these recordings to go on with
    assert planned(twin)[-1] == "tiny: 3 of 3 notebooks to do"
    for asked in (["status", str(twin)], ["compare", str(twin), str(file)]):
        assert main(asked) == 2 and f"was planned last by {other}, which goes on with" in capsys.readouterr().err
    assert planned(file)[-1] == "tiny: 0 of 3 notebooks to do", "where it was recorded before it wrote beside its file"
    file.unlink()  # it was moved
    assert planned(moved)[-1] == "tiny: 0 of 3 notebooks to do"


def test_what_a_study_was_made_of_is_noticed_by_what_it_is(write, executed, begun, tiny_study, tmp_path):
    images, folders = tmp_path / "images", begun
    shutil.copytree(yaml.safe_load(tiny_study)["benchmark"].partition(":")[2], images)
    given = {"targets": ["north"], "landscape": {"students": []}}
    run_study(write(**given, benchmark=f"folder:{images}"), **folders)
    assert executed == ["03_compare"]  # the images are those it was trained on, in another place
    images = images.rename(tmp_path / "moved")
    file = write(**given, benchmark=f"folder:{images}")
    assert planned(file, **folders) == ["tiny: 0 of 3 notebooks to do"]
    run = tmp_path / "runs" / "north-s0" / "KD"
    for name in ("window_map.csv", "scores.csv", "choices.json"):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        assert planned(file, **folders)[0] == f"north-s0-KD: its {name} is gone"
        (run / name).write_bytes(kept)
    (tmp_path / "report" / "summary.csv").unlink()
    assert planned(file, **folders) == ["03_compare: its summary.csv is gone", "tiny: 1 of 3 notebooks to do"]
    shutil.copy(images / "south" / "a" / "0.png", images / "south" / "a" / "new.png")
    lines = planned(file, **folders)
    assert lines[0] == "north-s0-teacher: images changed" and "2 finished recordings were made otherwise" in lines[3]
    assert "not other settings" in " ".join(planned(file, **folders, keep_recordings=True))


def test_a_teacher_of_another_study_is_known_by_what_it_deploys(write, executed, finished, tmp_path):
    given = {"targets": ["north"], "landscape": {"students": []}, "window_map": None}
    teacher = shutil.copytree(finished / "runs" / "north-s0" / "teacher", tmp_path / "taught")
    own = {"out": tmp_path / "report2", "runs": tmp_path / "runs2"}
    settings = {**given, "teacher": None, "students": {"KD": {"teacher": "taught"}}}
    file = write(**settings)
    run_study(file, **own)
    assert planned(file, **own)[-1] == "tiny: 0 of 2 notebooks to do"
    teacher.rename(tmp_path / "moved")
    file = write(**{**settings, "students": {"KD": {"teacher": "moved"}}})
    assert planned(file, **own)[-1] == "tiny: 0 of 2 notebooks to do"
    run = wk.load_run(tmp_path / "moved")
    run.deploy(wk.choose(run, ["best_val" if run.deployed.strategy == "last" else "last"])["last"])
    lines = planned(file, **own)
    assert lines[0] == "north-s0-KD: teacher changed" and "(teacher)" in lines[2]
    run_study(file, **own)
    assert list((tmp_path / "runs2" / "north-s0").glob("KD.before-*"))


def test_an_exported_file_teaches(write, executed, finished, tmp_path):
    run = wk.load_run(finished / "runs" / "north-s0" / "teacher")
    wk.export(run, run.deployed, tmp_path / "taught.safetensors", scores=False)
    students = {"KD": {"teacher": "taught.safetensors"}}
    file = write(targets=["north"], landscape={"students": []}, window_map=None, teacher=None, students=students)
    own = {"out": tmp_path / "report2", "runs": tmp_path / "runs2"}
    run_study(file, **own)
    taught = wk.load_run(tmp_path / "runs2" / "north-s0" / "KD").settings["teacher"]
    assert taught["file"] == "taught.safetensors" and taught["split"]["target"] == "north"
    assert planned(file, **own)[-1] == "tiny: 0 of 2 notebooks to do"


def test_keep_recordings_accepts_other_code_and_no_other_settings(write, executed, begun, tmp_path):
    file = write(targets=["north"], landscape={"students": []})
    began = {name: begun["runs"] / "engine" / "began" / f"north-s0-{name}.json" for name in ("teacher", "KD")}
    for name, other in {"teacher": {"steps": 5}, "KD": {"code of train": "older"}}.items():
        then = json.loads(began[name].read_text())
        began[name].write_text(json.dumps(then | {"recording": then["recording"] | other}))
    said = " ".join(planned(file, **begun))
    assert (
        "2 finished recordings were made otherwise" in said
        and "--keep-recordings accepts 1 of them as they are" in said
    )
    said = " ".join(planned(file, **begun, keep_recordings=True))
    assert "1 finished recordings were made otherwise" in said and "such as north-s0-teacher (steps)" in said
    assert "--keep-recordings accepts other code of the kit, not other settings or an edited objective." in said
    done = begun["runs"] / "engine" / "done" / "north-s0-teacher.json"
    then = json.loads(done.read_text())
    done.write_text(json.dumps(then | {"parameters": then["parameters"] | {"steps": 5}}))
    run_study(file, **begun, keep_recordings=True)
    assert len([*(begun["runs"] / "north-s0").glob("teacher.before-*")]) == 1
    assert not [*(begun["runs"] / "north-s0").glob("KD.before-*")]
    assert planned(file, **begun) == ["tiny: 0 of 3 notebooks to do"]


def test_a_plan_is_every_job_after_those_it_needs_with_complete_parameters(write):
    students = {"CE": {"objectives": ["ce"], "teacher": None, "learning_rate": 1}, "KD": None}
    mapped = {"grid": 2, "seeds": [3], "students": ["KD"]}
    jobs = plan(load_study(write(seeds=[3, 5], targets="all", students=students, window_map=mapped)), HERE)
    names = [job.name for job in jobs]
    assert names[:3] == ["east-s3-teacher", "east-s3-CE", "east-s3-KD"] and names[-1] == "03_compare"
    assert len(jobs) == 6 * 3 + 2  # a landscape of the first seed
    teacher, ce, kd = jobs[-4:-1]
    assert (teacher.run, ce.run) == (Path("/runs/south-s5/teacher"), Path("/runs/south-s5/CE"))
    assert kd.after == (teacher.name,) and not ce.after and kd.parameters["teacher"] == "/runs/south-s5/teacher"
    assert jobs[-1].after == tuple(names[:-1])
    assert ce.parameters["learning_rate"] == 1.0 and ce.parameters["steps"] == 6  # its own, and the common
    assert (ce.parameters["window_map_grid"], kd.parameters["window_map_grid"]) == (0, 0)  # the map is for seed 3
    for job in jobs:
        assert job.parameters == notebook.plain(notebook.make(notebook.describe(job.notebook), job.parameters))


def test_one_target_may_be_written_without_brackets_and_1e_3_is_a_number(write):
    file = write(targets="south", teacher=None, students={"CE": {"objectives": "ce"}}, window_map=None, landscape=None)
    file.write_text(file.read_text().replace("common:", "common:\n  learning_rate: 1e-3"))
    job = plan(load_study(file), HERE)[0]
    assert (job.name, job.parameters["learning_rate"], job.parameters["teacher"]) == ("south-s0-CE", 0.001, None)


@pytest.mark.parametrize("file", sorted(study.REPORTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_study_can_be_planned(file, monkeypatch):
    styles, severities = ["ink", "photo", "sketch", "neon"], [f"severity{n}" for n in range(1, 6)]
    known = {"digits": (styles, 10), "corrupted:digits": (styles + severities, 10)}
    known |= {"coloured_digits": (["agree90", "agree80", "agree10"], 2)}
    names, classes = known.get(load_study(file).benchmark, (["art_painting", "cartoon", "photo", "sketch"], 7))
    side = load_study(file).image_size or 32  # what shipped weights were trained at, so no smaller stand-in
    count = 100 // classes * classes  # a batch of 64 is to be had of two sources
    some = (np.zeros((count, side, side, 3), np.uint8), np.arange(count) % classes)
    domains = wk.domains_from_arrays(dict.fromkeys(names, some), tuple(map(str, range(classes))))
    monkeypatch.setattr(planning, "load_domains", lambda spec, **options: domains)
    assert load_study(file).name == file.stem
    assert plan(load_study(file), HERE)


def test_a_finished_study_is_one_page_with_tables_and_links_that_exist(finished):
    out = finished / "report"
    text = (out / "index.html").read_text()
    assert offline_problems(out / "index.html") == []
    assert "<title>A tiny study</title>" in text and "<p>Made by a test &amp; nothing to learn from.</p>" in text
    links = re.findall(r'href="([^"#]+)"', text)
    tables, pages = {f.name for f in out.glob("*.csv")}, [link for link in links if link.startswith("notebooks/")]
    assert {"summary.csv", "gains.csv", "ranks.csv", "scores.csv", "picks.csv"} <= tables <= set(links)
    assert [Path(link).stem for link in pages] == [
        "north-s0-teacher",
        "north-s0-KD",
        "landscape-north-s0-KD",
        "east-s0-teacher",
        "east-s0-KD",
    ]
    assert 'aria-label="landscape of KD, north, seed 0"' in text
    for link in pages:
        assert offline_problems(out / link) == []
        assert "resnet10t (" in (out / link).read_text()  # the sentence about the training
    notebooks = {f.name for f in (out / "notebooks").glob("*.ipynb")}
    assert notebooks == {Path(link).stem + ".ipynb" for link in pages} | {"03_compare.ipynb"}
    scores = pd.read_csv(out / "scores.csv")
    assert set(zip(scores.student, scores.strategy)) == {
        *((s, n) for s in ("teacher", "KD") for n in ("last", "WAKD", "SWAD")),
        ("teacher", "deployed"),
    }
    summary = pd.read_csv(out / "summary.csv")
    assert summary.student.iloc[0] == "teacher" and summary.student.iloc[-1] == "KD"
    for run in (finished / "runs").glob("*-s0/*"):
        assert wk.load_run(run).complete


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index.html", "notebooks/north-s0-KD.html", "notebooks/landscape-north-s0-KD.html"])
def test_a_browser_opens_its_pages_offline_and_nothing_sticks_out(finished, look, name):
    seen = look(finished / "report" / name)
    assert not seen["asked"] and not seen["errors"] and len(seen["images"]) >= 3
    assert all(alt and pixels for alt, pixels in seen["images"])
    assert seen["widths"] == [1920, 1280, 400]


def test_a_dry_run_names_what_is_new_and_what_depends_on_what_changed(finished, write):
    folders = {"out": finished / "report", "runs": finished / "runs"}

    def dry(**settings) -> tuple[dict[str, str], list[str]]:
        """{notebook: reason}, and what is said of recordings."""
        *lines, _ = planned(write(**settings), **folders)
        named = [line for line in lines if "ecordings" not in line]
        return dict(line.split(": ", 1) for line in named), [line for line in lines if line not in named]

    def megabytes(lines: list[str]) -> float:
        (line,) = lines
        return float(re.search(r"at most ([\d.]+) MB more", line)[1])

    todo, space = dry(seeds=[0, 1])
    ours = {f"{target}-s1-{who}" for target in ("north", "east") for who in ("teacher", "KD")}
    assert todo.pop("east-s0-KD") == "its page's nav changed", "which led to the comparison and leads to another seed"
    assert set(todo) == {*ours, "03_compare"} and {todo[name] for name in ours} == {"new"}
    there = sum(f.stat().st_size for f in (finished / "runs").glob("*-s0/**/*") if f.is_file()) / 1e6
    most = megabytes(space)  # of runs like those that are there, with the checkpoints that a finished one no longer has
    assert 0.3 < there / most < 1
    assert re.search(r"What teachers give takes at most 0\.\d MB of the cache\.$", space[0])

    strategies = yaml.safe_load(write().read_text())["strategies"]
    todo, again = dry(strategies=[*strategies, {"name": "sma", "start": 0.5}])
    assert not again  # evaluated again from the same recordings
    assert all("strategies changed" in why for name, why in todo.items() if name != "03_compare")
    assert {"north-s0-teacher", "north-s0-KD", "landscape-north-s0-KD"} < set(todo)

    todo, again = dry(students={"KD": {"objectives": [{"name": "kd", "temperature": 2.0}]}})
    assert set(todo) == {"north-s0-KD", "east-s0-KD", "landscape-north-s0-KD", "03_compare"}  # and no teacher
    assert "2 finished recordings were made otherwise" in again[0]
    assert most / 4 < megabytes(again[1:]) < most  # students alone, whose teachers are there


@pytest.fixture
def again(finished, tmp_path):
    """The finished study in a folder of its own, for tests that begin it again: one at a time has its lock."""
    return shutil.copytree(finished, tmp_path / "again")


def test_a_study_that_would_fill_the_disk_is_not_begun(write, executed, again, tmp_path, monkeypatch):
    monkeypatch.setattr("wakd_kit.study.run.shutil.disk_usage", lambda _: types.SimpleNamespace(free=1_000_000))
    with pytest.raises(
        StudyProblem, match=r"Recordings take at most [\d.]+ MB more, and .*runs has 1.0 MB free. Pass --runs"
    ):
        run_study(write(), out=tmp_path / "report", runs=tmp_path / "runs")
    assert not executed
    run_study(again / "tiny.yaml", out=again / "report", runs=again / "runs")  # what is there takes no more


def test_a_finished_study_is_not_run_again(again, executed):
    folders = {"out": again / "report", "runs": again / "runs"}
    for moved in (True, False):  # the first time the engine writes down where things are now
        before, lines = {n: c for n, c in contents(again).items() if not n.endswith("engine/lock")}, []
        run_study(again / "tiny.yaml", **folders, say=lines.append)
        after = {n: c for n, c in contents(again).items() if not n.endswith("engine/lock")}
        assert {n for n in before if moved and "/engine/" in n} >= {n for n in before if after.get(n) != before[n]}
        assert after.keys() == before.keys() and not executed
        assert lines[0] == "tiny: 0 of 6 notebooks to do" and len(lines) == 2
        assert planned(again / "tiny.yaml", **folders) == lines[:1]


def test_a_student_that_fails_is_kept_and_only_it_runs_again_once_mended(write, executed, begun, tmp_path):
    folders = begun
    huge = {"objectives": ["ce"], "teacher": None, "learning_rate": 1e30}
    lines = []
    said = (
        r"2 of 8 notebooks were not executed \(north-s0-CE, east-s0-CE\). north-s0-CE: .*Diverged.*shows what is there"
    )
    with pytest.raises(StudyProblem, match=said):
        run_study(write(students={"CE": huge, "KD": KD}), say=lines.append, **folders)
    assert sum("Diverged" in line and line.startswith("FAILED") for line in lines) == 2
    pages = {f.name for f in (tmp_path / "report" / "notebooks").iterdir()}
    assert {"north-s0-CE.failed.ipynb", "north-s0-CE.html", "north-s0-KD.ipynb", "north-s0-KD.html"} <= pages
    assert "north-s0-CE.ipynb" not in pages
    why = (tmp_path / "report" / "notebooks" / "north-s0-CE.html").read_text()
    assert "Diverged" in why and 'class="notice"' in why and str(tmp_path) not in why, "its page says why"
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Not in this report: 2 notebooks." in page and "Diverged" in page and str(tmp_path) not in page
    assert (
        '<a href="notebooks/north-s0-CE.html">north-s0-CE</a>' in page
        and "north-s0-KD.html" in page
        and executed[-1] == "03_compare"
    )
    assert "2 notebooks are missing" in (tmp_path / "report" / "study.json").read_text()
    assert set(pd.read_csv(tmp_path / "report" / "scores.csv").student) == {"teacher", "KD"}
    table, _ = study.status(tmp_path / "tiny.yaml", **folders)
    failed = table[table["state"] == "failed"]
    assert failed["name"].tolist() == ["north-s0-CE", "east-s0-CE"] and failed["said"].str.contains("Diverged").all()

    executed.clear()  # the same ones fail again: what the page shows is made once
    with pytest.raises(StudyProblem, match="2 of 8 notebooks"):
        run_study(tmp_path / "tiny.yaml", say=lines.append, **folders)
    assert executed == ["north-s0-CE", "east-s0-CE"]

    executed.clear()
    index = run_study(write(students={"CE": {**huge, "learning_rate": 0.01}, "KD": KD}), **folders)
    assert executed == ["north-s0-CE", "east-s0-CE", "03_compare"] and "Not in this report" not in index.read_text()
    assert not list((tmp_path / "report").rglob("*.failed.ipynb"))
    kept = [f for f in (tmp_path / "runs" / "north-s0").iterdir() if f.name.startswith("CE.before-")]
    assert len(kept) == 1  # the recording that diverged

    executed.clear()  # a new title is rendered, and nothing is executed
    index = run_study(write(students={"CE": {**huge, "learning_rate": 0.01}, "KD": KD}, title="Renamed"), **folders)
    assert not executed and "<title>Renamed</title>" in index.read_text()

    executed.clear()  # a student that is no longer listed stays on disk, and off the page
    run_study(write(students={"KD": KD}), **folders)
    assert executed == ["03_compare"] and (tmp_path / "runs" / "north-s0" / "CE").is_dir()
    assert set(pd.read_csv(tmp_path / "report" / "scores.csv").student) == {"teacher", "KD"}


def test_students_of_a_teacher_that_fails_are_not_run_and_the_others_are(write, executed, tiny_study, tmp_path):
    teacher = {**yaml.safe_load(tiny_study)["teacher"], "learning_rate": 1e30}
    students = {"KD": {}, "CE": {"objectives": ["ce"], "teacher": None}}
    lines = []
    with pytest.raises(StudyProblem, match="3 of 5 notebooks"):
        file = write(teacher=teacher, students=students, targets=["north"])
        run_study(file, out=tmp_path / "report", runs=tmp_path / "runs", say=lines.append)
    assert executed == ["north-s0-teacher", "north-s0-CE", "03_compare"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Not in this report: 3 notebooks." in page and "waits for north-s0-teacher, which is not there" in page
    assert "FAILED north-s0-KD: north-s0-teacher, which it needs, failed." in lines


def test_another_strategy_needs_no_training_and_another_teacher_new_students(
    write, executed, begun, tiny_study, tmp_path
):
    folders, run = begun, tmp_path / "runs" / "north-s0" / "KD"
    recorded = contents(run / "segments")
    strategies = ["last", {"name": "wakd", "begin": 2}]
    run_study(write(targets=["north"], strategies=strategies), **folders)
    names = ["north-s0-teacher", "north-s0-KD", "landscape-north-s0-KD", "03_compare"]
    assert executed == names and contents(run / "segments") == recorded
    assert set(pd.read_csv(tmp_path / "report" / "scores.csv").strategy) == {"last", "wakd", "deployed"}

    deploy = {**yaml.safe_load(tiny_study)["teacher"], "deploy": {"name": "last"}}
    file, lines = write(targets=["north"], strategies=strategies, teacher=deploy), []
    executed.clear()
    run_study(file, **folders, say=lines.append)
    assert executed == names and contents(run / "segments") != recorded
    # the recording that was there is of another teacher; it is not thrown away
    (kept,) = run.parent.glob("KD.before-*")
    assert contents(kept / "segments") == recorded
    assert f"north-s0-KD: KD was recorded otherwise (the teacher); it is kept as {kept.name}" in lines


@pytest.fixture
def interruptible():
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_landscape_is_drawn_of_the_first_student_with_a_teacher_unless_others_are_named(write):
    students = {"CE": {"objectives": ["ce"], "teacher": None}, "KD": None, "more": None}

    def drawn(**settings):
        jobs = plan(load_study(write(seeds=[3, 5], students=students, window_map=None, **settings)), HERE)
        return [job for job in jobs if job.kind == "04_landscape"]

    north, east = drawn(landscape=None)
    assert [north.name, east.name] == ["landscape-north-s3-KD", "landscape-east-s3-KD"]
    assert north.run == Path("/runs/north-s3/KD") and north.parameters["baseline"] == "last"
    assert north.parameters["strategies"] == ["last", "WAKD", "SWAD"]
    wanted = {
        "targets": ["east"],
        "seeds": [3, 5],
        "students": ["CE", "more"],
        "size": 4,
        "strategies": ["last", "WAKD"],
    }
    jobs = drawn(landscape=wanted)
    assert [job.name for job in jobs] == [f"landscape-east-s{s}-{n}" for s in (3, 5) for n in ("CE", "more")]
    assert {(job.parameters["size"], *job.parameters["strategies"]) for job in jobs} == {(4, "last", "WAKD")}
    assert not drawn(landscape={"students": []})


def test_a_page_leads_to_its_domain_whatever_that_is_called(write, tiny_study, tmp_path):
    images, domains = tmp_path / "images", ("landscape-night", "search-s1-without-sun", "day")
    for there, called in zip(("north", "east", "south"), domains):
        shutil.copytree(Path(yaml.safe_load(tiny_study)["benchmark"].partition(":")[2]) / there, images / called)
    search = {"draws": 1, "rule": "leave_one_source_out", "students": ["KD"], "over": {"learning_rate": "10^U(-3,-1)"}}
    file = write(benchmark=f"folder:{images}", targets=[*domains], landscape=None, search=search, window_map=None)
    jobs = [job for job in plan(load_study(file), HERE) if job.run]
    assert {job.kind for job in jobs} == {"01_train_teacher", "02_distill", "04_landscape"}
    for job in jobs:
        (target,) = [name for name in domains if re.search(rf"(^|(landscape|search)-){name}-s(0|100)-", job.name)]
        title, (_, (name, page), *_) = job.shown["title"], job.shown["nav"].items()
        assert (name, page) == (target, f"../targets/{target}.html"), job.name
        held = re.search(rf"{target}-s100-without-(.+)-(KD-d0|teacher)$", job.name)
        out = f"{target} and {held[1]}" if held else target
        assert title.removeprefix("Loss around ").startswith(f"{job.run.name}, {out} left out, seed "), job.name


def test_a_landscape_follows_the_run_it_is_of(write, executed, begun, tmp_path):
    folders, kept = begun, tmp_path / "runs" / "north-s0" / "KD" / "landscape"
    assert {"plane.csv", "flatness.csv"} <= {f.name for f in kept.iterdir()}
    # another grid needs no training
    run_study(write(targets=["north"], landscape={"size": 2, "radii": [1.0], "directions": 2}), **folders)
    assert executed == ["landscape-north-s0-KD", "03_compare"]

    settings = {"targets": ["north"], "landscape": {"size": 2, "radii": [1.0], "directions": 2}}
    executed.clear()  # its copy is gone: executed again, with the same result, which nothing else waits for
    (tmp_path / "report" / "notebooks" / "north-s0-KD.ipynb").unlink()
    assert planned(write(**settings), **folders)[:2] == [
        "north-s0-KD: its notebook is gone",
        "landscape-north-s0-KD: after north-s0-KD",
    ]
    run_study(write(**settings), **folders)
    assert executed == ["north-s0-KD"]

    executed.clear()  # another student, under the same name
    run_study(write(**settings, students={"KD": {"learning_rate": 0.02}}), **folders)
    assert executed == ["north-s0-KD", "landscape-north-s0-KD", "03_compare"]


def test_a_landscape_comes_after_the_runs_that_it_draws_lines_to_and_follows_them(write, executed, begun, tmp_path):
    small = {"size": 2, "radii": [1.0], "directions": 2, "students": ["KD"]}
    other = {"targets": ["north"], "landscape": {**small, "others": ["runs/north-s1/more"]}, "window_map": None}
    file = write(students={"KD": KD, "more": KD}, seeds=[0, 1], **other)
    jobs = plan(load_study(file), Place(tmp_path / "report", tmp_path / "runs"))
    assert [job.kind for job in jobs[6:]] == ["04_landscape", "03_compare"]
    assert jobs[6].after == ("north-s0-KD", "north-s1-more") and not jobs[6].given

    other["landscape"]["others"] = ["runs/north-s0/more"]
    run_study(write(students={"KD": KD, "more": KD}, **other), **begun)
    assert executed == ["north-s0-KD", "north-s0-more", "landscape-north-s0-KD", "03_compare"]
    executed.clear()
    run_study(write(students={"KD": KD, "more": {**KD, "learning_rate": 0.02}}, **other), **begun)
    assert executed == ["north-s0-more", "landscape-north-s0-KD", "03_compare"]

    elsewhere = shutil.copytree(tmp_path / "runs" / "north-s0" / "more", tmp_path / "another")
    other["landscape"]["others"] = ["another"]
    file = write(students={"KD": KD, "more": {**KD, "learning_rate": 0.02}}, **other)
    run_study(file, **begun)
    assert planned(file, **begun)[-1] == "tiny: 0 of 5 notebooks to do"
    for name in ("choices.json", "segments/index.json"):
        kept = (elsewhere / name).read_bytes()
        changed = json.loads(kept)
        changed.pop("WAKD" if name == "choices.json" else -1)
        (elsewhere / name).write_text(json.dumps(changed))
        assert planned(file, **begun)[0] == "landscape-north-s0-KD: others changed"
        (elsewhere / name).write_bytes(kept)
    settings = json.loads((elsewhere / "settings.json").read_text())
    settings["split"]["fingerprint"] = "other"
    (elsewhere / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(StudyProblem, match="another was trained on other images; take runs of this benchmark"):
        planned(file, **begun)


def test_the_landscape_of_a_student_that_fails_is_not_drawn(write, executed, begun):
    lines = []
    with pytest.raises(StudyProblem, match="2 of 4 notebooks"):
        run_study(write(targets=["north"], students={"KD": {"learning_rate": 1e30}}), **begun, say=lines.append)
    assert executed == ["north-s0-KD", "03_compare"]
    assert "FAILED landscape-north-s0-KD: north-s0-KD, which it needs, failed." in lines


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_study_begins_nothing_more_and_leaves_no_kernel(write, executed, monkeypatch, tmp_path):
    begun, lines, killed = [], [], []

    def execute(source, out, *_, **__):
        begun.append(out.stem)
        out.parent.mkdir(parents=True)
        out.with_name(f"{out.stem}.failed.ipynb").write_text("{}")  # an interrupted notebook is kept
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C while a kernel works

    monkeypatch.setattr(notebook, "execute", execute)
    monkeypatch.setattr(notebook, "kill_running", lambda: killed.append(True))
    with pytest.raises(KeyboardInterrupt):
        run_study(write(), out=tmp_path / "report", runs=tmp_path / "runs", say=lines.append)
    assert begun == ["north-s0-teacher"] and killed and not any("FAILED" in line for line in lines)
    table, _ = study.status(write(), out=tmp_path / "report", runs=tmp_path / "runs")
    assert set(table["state"]) == {"waiting"}


def test_students_are_compared_with_a_reference_and_asked_further_questions(write, executed, begun, tmp_path):
    students = {"CE": {"objectives": ["ce"], "teacher": None}, "KD": KD, "AT": {"objectives": ["ce", "at"]}}
    given = {"students": students, "landscape": {"students": []}}
    file = write(
        **given,
        reference="KD",
        also={
            "05_objectives": {"average": "SWAD", "reference": "CE"},
            "06_when_averaging_helps": {"averages": ["WAKD", "SWAD"]},
        },
    )
    index = run_study(file, **begun)
    assert executed[-3:] == ["05_objectives", "06_when_averaging_helps", "03_compare"] and len(executed) == 2 * 2 + 3
    cells = pd.read_csv(tmp_path / "report" / "cells.csv")
    assert set(zip(cells["student"], cells["average"])) == {
        (s, a) for s in ("CE", "KD", "AT") for a in ("WAKD", "SWAD")
    }
    assert cells.loc[cells["average"] == "WAKD", "dip"].notna().all()
    gains = pd.read_csv(tmp_path / "report" / "gains.csv")["label"]
    between = [label for label in gains if ": " not in label]
    assert between == [f"{s} {at} - KD {at}" for s in ("CE", "AT") for at in ("last", "WAKD")]  # not CE with AT
    against = pd.read_csv(tmp_path / "report" / "against.csv")["label"]
    assert against.tolist() == ["KD SWAD - CE SWAD", "AT SWAD - CE SWAD"]
    assert set(pd.read_csv(tmp_path / "report" / "before_after.csv")["student"]) == {"CE", "KD", "AT"}
    assert 'href="notebooks/05_objectives.html"' in index.read_text()
    assert (tmp_path / "report" / "notebooks" / "05_objectives.html").is_file()


PAPERS = ["pacs_resnet18", "pacs_deit_tiny", "officehome_resnet18", "officehome_deit_tiny"]


@pytest.mark.parametrize(
    "name", [PAPERS[0], *(pytest.param(n, marks=pytest.mark.skipif("WAKD_SLOW" not in os.environ, reason="long form; set WAKD_SLOW=1")) for n in PAPERS[1:])]
)  # fmt: skip
def test_the_papers_studies_run_on_stand_ins(name, executed, tmp_path):
    """Two steps on images and weights made here, everything else as it is shipped; at 64 px where networks take any size."""
    values, side = dataclasses.asdict(load_study(name)), 64 if "resnet" in name else 224
    for i, domain in enumerate(("north", "east")):
        for n, (image, label) in enumerate(zip(*patterns(i, per_class=3, classes=2))):
            file = tmp_path / "images" / domain / "ab"[label] / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize((side, side)).save(file)
    for part in ("teacher", "common"):
        weights = tmp_path / f"{part}.safetensors"
        save_file(wk.build_model(values[part]["model"], 1000, seed=0).model.state_dict(), weights)
        few = {"pretrained": False, "weights": str(weights), "steps": 2, "segment_length": 1, "batch_size": 2}
        values[part] |= few | ({"deploy": {"name": "last"}} if part == "teacher" else {})
    values |= {"benchmark": f"folder:{tmp_path / 'images'}", "image_size": side, "targets": ["north"], "seeds": [0]}
    values |= {"strategies": ["last", {"name": "wakd", "label": "WAKD", "begin": 1}]}
    values |= {"window_map": {}, "landscape": {"students": []}}
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(values))
    run_study(tmp_path / "paper.yaml", out=tmp_path / "report", runs=tmp_path / "runs")
    assert executed == ["north-s0-teacher", "north-s0-CE", "north-s0-KD", "08_beyond_accuracy", "03_compare"]
    kd = wk.load_run(tmp_path / "runs" / "north-s0" / "KD")
    assert (kd.settings["batchnorm"], kd.settings["storage"]) == ("frozen", "float16_difference")


@pytest.mark.parametrize("written", ["north+east", ["north", "east"]])
def test_a_landscape_of_two_domains_left_out_at_once_is_drawn_however_they_are_written(write, written):
    ce = {"CE": {"objectives": ["ce"], "teacher": None}}
    about = {"teacher": None, "targets": [["east", "north"]], "seeds": [0], "window_map": None}
    file = write(students=ce, landscape={"targets": [written], "students": ["CE"]}, **about)
    jobs = plan(load_study(file), Place(Path("/report"), Path("/runs")))
    assert any(job.name.startswith("landscape-") for job in jobs)


def test_two_domains_left_out_at_once_are_one_split_and_two_columns(write, executed, tmp_path):
    """To the page: scores apart, their mean, pairs that count once, window maps whose oracle is the mean."""
    about = {"teacher": None, "landscape": {"students": []}, "targets": [["east", "north"]]}
    file = write(students={"CE": {"objectives": ["ce"], "teacher": None}}, seeds=[0], window_map={"grid": 2}, **about)
    page = run_study(file, say=lambda line: None, out=tmp_path / "report", runs=tmp_path / "runs")
    run = wk.load_run(tmp_path / "runs" / "east+north-s0" / "CE")
    assert run.split.targets == ("east", "north") and run.split.sources == ("south",)
    unseen = run.scores[run.scores["role"] == "target"].set_index(["strategy", "domain"])["accuracy"]
    table = pd.read_csv(tmp_path / "report" / "summary.csv").set_index("strategy")
    for domain in ("east", "north"):
        assert table.loc["WAKD", domain] == pytest.approx(100 * unseen["WAKD", domain])
    assert table.loc["WAKD", ["east+north", "mean"]].tolist() == pytest.approx([100 * unseen["WAKD"].mean()] * 2)
    whole = run.window_map.set_index(["begin", "end"])["oracle_target_accuracy"]
    assert len(whole) and unseen["WAKD"].mean() in [pytest.approx(value) for value in whole]
    assert (
        "Accuracy in % on east+north, the domain left out" in (page.parent / "targets" / "east+north.html").read_text()
    )
    with pytest.raises(ValueError, match="left several out at once: east"):
        Board(run)


@pytest.mark.parametrize(
    ("given", "there", "wanted", "expected"),
    [
        (None, 0, None, ""),
        (None, 2, None, "0,1"),
        (None, 1, 3, "0,0,0"),
        ("2,3", 2, 3, "2,3,2"),
        ("GPU-7f", 1, None, "GPU-7f"),
        (None, 0, 4, ""),
    ],
)
def test_trainings_share_the_accelerators_that_there_are(monkeypatch, given, there, wanted, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert study._devices(wanted) == {"WAKD_GPUS": expected}


def test_without_accelerators_a_study_sees_none():
    assert study._devices(0) == {"CUDA_VISIBLE_DEVICES": "", "WAKD_GPUS": ""}


def test_as_many_trainings_fit_the_cores_as_share_accelerators(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    jobs = [types.SimpleNamespace(after=after) for after in ([], ["teacher"], ["teacher"], ["teacher"], ["teacher"])]
    place = types.SimpleNamespace(engine=Path("engine"))
    assert "threads=4" in study._words(jobs, place, 16, 4, None)
    assert "threads=16" in study._words(jobs, place, 16, None, None)


def test_fewer_than_no_accelerators_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="gpus is 0 or more; got -1"):
        run_study(tmp_path / "any.yaml", gpus=-1)


def test_a_class_too_small_for_a_split_is_named_before_anything_runs(write, monkeypatch):
    few = (
        np.zeros((5, 16, 16, 3), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None],
        np.array([0, 0, 0, 0, 1]),
    )
    more = (few[0], np.array([0, 0, 0, 1, 1]))
    domains = wk.domains_from_arrays({"north": more, "east": few, "south": more}, ("x", "y"))
    monkeypatch.setattr(planning, "load_domains", lambda spec, **options: domains)
    small = {"teacher": {"model": "resnet10t", "steps": 6, "batch_size": 2}, "targets": ["north"]}
    with pytest.raises(StudyProblem, match="tiny, teacher without north: Class 'y' of domain 'east' has 1 image"):
        plan(load_study(write(**small)), HERE)


def test_with_all_source_images_a_batch_may_be_larger(write, monkeypatch):
    images = np.zeros((10, 16, 16, 3), np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None]
    domains = wk.domains_from_arrays(
        {name: (images, np.arange(10) % 2) for name in ("north", "east", "south")}, ("x", "y")
    )
    monkeypatch.setattr(planning, "load_domains", lambda spec, **options: domains)
    small = {
        "teacher": None,
        "common": {"model": "resnet10t", "steps": 6},
        "targets": ["north"],
        "window_map": None,
        "landscape": None,
    }
    first, again = {**CE, "batch_size": 8}, {**CE, "refit": "A", "batch_size": 18}
    assert plan(load_study(write(students={"A": first, "B": again}, **small)), HERE)
    with pytest.raises(StudyProblem, match="B: batch_size 18 is more than the 16 source training images"):
        plan(load_study(write(students={"A": first, "B": {**CE, "batch_size": 18}}, **small)), HERE)


def test_a_batch_larger_than_the_images_of_another_target_is_told_before_the_first_is_trained(write, monkeypatch):
    many, few = (np.arange(16 * 16 * 3 * n, dtype=np.uint8).reshape(n, 16, 16, 3) for n in (60, 10))
    arrays = {"north": few, "east": few, "south": many}
    domains = wk.domains_from_arrays({n: (x, np.arange(len(x)) % 2) for n, x in arrays.items()}, ("x", "y"))
    monkeypatch.setattr(planning, "load_domains", lambda spec, **options: domains)
    given = {"teacher": None, "common": {"model": "resnet10t", "steps": 6}, "window_map": None, "landscape": None}
    given |= {"students": {"A": {**CE, "batch_size": 32}}}
    assert plan(load_study(write(targets=["north", "east"], **given)), HERE)
    with pytest.raises(StudyProblem, match="A without south: batch_size 32 is more than the 16 source training images"):
        plan(load_study(write(targets=["north", "south"], **given)), HERE)
    with pytest.raises(
        StudyProblem, match=r"tiny: east\+north is listed twice among the targets|north\+east is listed twice"
    ):
        plan(load_study(write(targets=[["north", "east"], ["east", "north"]], **given)), HERE)


def test_a_network_that_computes_on_numbers_is_planned(write, tmp_path):
    (tmp_path / "own_net.py").write_text(NUMBERS)
    students = {"CE": {**CE, "model": "resnet_of_numbers"}}
    file = write(students=students, targets=["north"], plugins=["own_net.py"], window_map=None, landscape=None)
    assert plan(load_study(file), HERE)
    odd = {"CE": {**CE, "model": "resnet_of_numbers", "model_settings": {"in_chans": 1}}}
    with pytest.raises(StudyProblem, match="CE: resnet_of_numbers takes no float32 images of 16 px"):
        plan(
            load_study(write(students=odd, targets=["north"], plugins=["own_net.py"], window_map=None, landscape=None)),
            HERE,
        )


NUMBERS = """
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, ResNet


class OfNumbers(ResNet):
    def forward_features(self, x):
        return super().forward_features(x * (1.0 if x.mean().item() >= 0 else 0.5))


@register_model
def resnet_of_numbers(pretrained=False, **settings):
    own = {"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
    return build_model_with_cfg(OfNumbers, "resnet18", pretrained, **{**own, **settings})
"""

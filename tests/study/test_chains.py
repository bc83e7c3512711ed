"""Students that learn or start from other students: order, what they get, what is refused, and what happens when one changes."""

# ruff: noqa: F811

import re

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.reporting import render
from wakd_kit.runs.store import RunProblem
from wakd_kit.study import jobs as job_files
from wakd_kit.study import run as study
from wakd_kit.study.jobs import Place
from wakd_kit.study.run import StudyProblem, load_study, plan, run_study

from ..conftest import SMALL
from .test_run import HERE, executed, write  # noqa: F401

KD, CE = {"objectives": ["kd"]}, {"objectives": ["ce"], "teacher": None}
ONE = {"targets": ["north"], "landscape": {"students": []}, "window_map": None}


def planned_jobs(file, place=HERE) -> dict:
    return {job.name: job for job in plan(load_study(file), place) if job.records}


def test_a_label_is_the_run_of_the_same_split_and_comes_first(write):
    chain = {
        "S": {**KD, "teacher": "TA"},
        "S2": {**KD, "teacher": "TA", "start": "S"},
        "TA": {"deploy": {"name": "wakd"}},
        "CE": CE,
    }
    jobs = planned_jobs(write(students=chain, targets=["east"], seeds=[0, 1], landscape={}, window_map=None))
    order = [name for name in jobs if name.startswith("east-s1-")]
    assert order == [f"east-s1-{name}" for name in ("teacher", "TA", "S", "S2", "CE")], (
        "as listed, but for who is waited for"
    )
    s, s2 = jobs["east-s1-S"], jobs["east-s1-S2"]
    assert s.after == ("east-s1-TA",) and s.parameters["teacher"] == "/runs/east-s1/TA"
    assert s2.after == ("east-s1-TA", "east-s1-S") and s2.parameters["start"] == "/runs/east-s1/S"
    assert jobs["east-s1-TA"].after == ("east-s1-teacher",) and jobs["east-s1-CE"].after == ()
    assert s2.given["start"] == "S" and "start" not in s.given and "teacher" not in s2.given


def test_the_study_s_own_teacher_has_a_label_too(write):
    job = planned_jobs(
        write(students={"KD": {"objectives": ["ce"], "teacher": None, "start": "teacher"}}, window_map=None)
    )["north-s0-KD"]
    assert job.after == ("north-s0-teacher",) and job.parameters["start"] == "/runs/north-s0/teacher"
    assert job.parameters["teacher"] is None


def test_code_of_the_strategy_that_averages_a_teacher_decides_the_recording(write):
    as_it_is, swad = ({**KD, **given} for given in ({}, {"teacher_as": {"name": "swad"}}))
    jobs = planned_jobs(write(students={"KD": as_it_is, "S": swad}, window_map=None))
    of_kd, of_s = (jobs[f"north-s0-{name}"] for name in ("KD", "S"))
    assert of_s.training.keys() - of_kd.training.keys() >= {"swad"} and of_kd.training.items() <= of_s.training.items()
    assert "swad" in of_kd.analysis and "swad" not in of_s.analysis


def test_labels_of_what_is_extended_are_those_of_the_file_that_has_students(write, tmp_path):
    base = write(students={"TA": KD, "S": {**KD, "teacher": "TA"}}, window_map=None)
    more = base.with_name("more.yaml")
    more.write_text("extends: tiny.yaml\ncommon: {steps: 8}\n")
    assert load_study(more).students["S"]["teacher"] == "TA"
    more.write_text("extends: tiny.yaml\nstudents: {A: {}, B: {teacher: A}}\n")
    assert load_study(more).students["B"]["teacher"] == "A"


def test_a_folder_that_is_called_like_a_student_is_written_as_a_path(write, tmp_path):
    chain = {"TA": KD, "S": {**KD, "teacher": "TA"}}
    (tmp_path / "TA").mkdir()
    (tmp_path / "TA" / "settings.json").write_text("{}")
    with pytest.raises(
        StudyProblem, match=r"TA is a student of this study, and a run beside its file: write \./TA for the run"
    ):
        load_study(write(students=chain, window_map=None))
    read = load_study(write(students={"TA": KD, "S": {**KD, "teacher": "./TA"}}, window_map=None))
    assert read.students["S"]["teacher"] == str(tmp_path / "TA")


@pytest.mark.parametrize(
    "students, sentence",
    [
        ({"A": {"teacher": "B"}, "B": {"teacher": "A"}}, "students learn or start from each other in a circle: "),
        ({"A": {"teacher": "A"}}, "in a circle: A before A. One has to be the first."),
        ({"A": {"start": "B"}, "B": {"teacher": "C"}, "C": {"teacher": "A"}}, "in a circle: "),
        ({"TAA": {}, "S": {"teacher": "TA"}}, "which should be the teacher. Did you mean 'TAA'? Students here: teacher, TAA, S."),
        ({"TAA": {}, "S": {"start": "TA"}}, "which should be the start. Did you mean 'TAA'?"),
        ({"S": {"teacher": "tiny.yaml"}}, "tiny.yaml cannot teach: a teacher is a run's folder, or a .safetensors file"),
        ({"S": {"teacher": "tiny.yaml", "teacher_as": {"name": "last"}}}, "tiny.yaml is a file, of one average; give the run's folder"),
        ({"S": {"start": "tiny.yaml"}}, "tiny.yaml, which should be the start."),
        ({"A": {}, "B": {"start": "A", "model": "resnet18"}}, "B: A trained another network than resnet18, which should start from it: "),
        ({"A": {}, "B": {"start": "A", "model_settings": {"channels": [8, 8, 8, 8], "stem_width": 4, "layers": [1, 1, 0, 0]}}}, "another network"),
        ({"A": {}, "B": {"start": "A", "weights": "w.safetensors"}}, "start and weights both say where the student starts"),
        ({"A": {}, "same": {"start": "A"}, "B": {"start": "A", "model_settings": {**SMALL, "channels": [8, 8, 8, 8]}}}, "B: A trained another network"),
        ({"A": {}, "B": {"start": {"of": "A", "by": "blocks"}, "model_settings": {**SMALL, "layers": [2, 1, 0, 0]}}}, "nothing like model.layer1.1"),
        ({"A": {}, "B": {"start": {"of": "A", "by": "halves"}}}, "start: Unknown by 'halves'. Known: blocks, both, channels."),
        ({"A": {}, "B": {"start": {"of": "A"}}}, "start is a run, or "),
        ({"A": {"deploy": {"name": "wadk"}}}, "deploy: Unknown strategy 'wadk'. Did you mean 'wakd'?"),
        ({"A": {"deploy": {"name": "wakd", "begin": 9}}}, "A strategy begins beyond the 6 steps of the run"),
        ({"A": {"teacher": {"of": ["teacher", "B"]}}, "B": {"teacher": "A"}}, "in a circle: "),
        ({"A": {"teacher": {"of": ["teacher"], "weigh": "surer"}}}, "teacher: Unknown weigh 'surer'. Did you mean 'surest'?"),
        ({"A": {"teacher": {"of": ["teacher", "start"]}, "objectives": ["rkd"]}}, "several teachers have none in common"),
        ({"A": {"teacher": "None"}}, "None, which should be the teacher. No teacher is null. Students here"),
        ({"A": {"teacher": {"of": ["teecher"]}}}, "which should be the teacher. Did you mean 'teacher'?"),
        ({"A": {}, "start": {}, "B": {"teacher": {"of": ["A", "start"]}}}, "give the student that is called so another name."),
        ({"A": {}, "B": {"teacher": "runs/north-s0/A"}}, "is a run of this study; write A, the student of the same target and seed."),
    ],
)  # fmt: skip
def test_what_cannot_follow_is_a_sentence_before_anything_runs(write, executed, tmp_path, students, sentence):
    with pytest.raises(StudyProblem, match=re.escape(sentence)):
        run_study(write(students=students, **ONE), out=tmp_path / "report", runs=tmp_path / "runs")
    assert not executed and [f.name for f in tmp_path.iterdir()] == ["tiny.yaml"]


def test_weights_that_all_start_from_are_put_aside_by_a_start(write):
    """``common`` may give everybody weights; who starts from another run has none of them."""
    study = load_study(write(students={"A": {}, "B": {"start": "A"}}, window_map=None))
    study.common["pretrained"] = True
    study.students["A"]["pretrained"] = False
    assert [job.parameters["pretrained"] for job in plan(study, HERE) if job.records] == [False] * 6


def test_what_is_searched_follows_who_won_and_waits_for_it(write, tmp_path):
    chain = {"TA": KD, "S": {**KD, "teacher": "TA"}}
    search = {"draws": 2, "by": "WAKD", "over": {"learning_rate": "10^U(-3,-1)"}}
    file, place = write(students=chain, search=search, **ONE), Place(tmp_path / "report", tmp_path / "runs")
    jobs = planned_jobs(file, place)
    assert jobs["search-north-s100-S-d1"].after == ("search-north-s100-TA-d0",)  # a stand-in: nobody has won yet
    assert jobs["search-north-s100-S-d1"].open and jobs["north-s0-S"].open
    plain = planned_jobs(write(students=chain, search={**search, "students": ["S"]}, **ONE), place)
    assert "search-north-s100-TA" in plain and plain["search-north-s100-S-d1"].after == ("search-north-s100-TA",)
    assert (
        plain["search-north-s100-TA"].after == ("search-north-s100-teacher",)
        and not plain["search-north-s100-S-d1"].open
    )
    like = write(students={**chain, "KD": KD}, search={**search, "like": {"TA": "KD"}}, **ONE)
    with pytest.raises(StudyProblem, match="others come after TA, so it is not like KD, but searched"):
        planned_jobs(like, place)


TAKD = {"TA": {**KD, "deploy": {"name": "wakd", "begin": 0.5}}, "S": {**KD, "teacher": "TA"}}
BORN_AGAIN = {"one": CE, "two": {"objectives": [{"name": "kd", "temperature": 1.0}], "teacher": "one"}}
BORN_AGAIN |= {"three": {**BORN_AGAIN["two"], "teacher": "two"}}
NARROW = {"model_settings": {**SMALL, "channels": [2, 4, 4, 4]}}
PARTS = {"narrow": {**KD, **NARROW, "start": {"of": "teacher", "by": "channels"}}}
STAGES = {"hints": {"objectives": ["fitnet"]}, "then": {**KD, "start": "hints"}}


@pytest.fixture
def one_by_one(executed, tmp_path, monkeypatch):
    """Trains what a study plans with the sequential engine, without pages and without the comparison; says what is to do then."""
    monkeypatch.setattr(render, "render", lambda executed, page, **_: page.write_text("page"))

    def trained(file) -> dict[str, str]:
        place = Place(tmp_path / "report", tmp_path / "runs")
        jobs = [job for job in plan(load_study(file), place) if job.records]
        job_files.describe(jobs, place)
        study._one_by_one(jobs, place, {}, print)
        return job_files.pending(jobs, place)

    return trained


EXPERTS = {"one": {**CE, "only": [1]}, "two": {**CE, "only": [2]}}
TOGETHER = {**EXPERTS, "DG": {**KD, "teacher": {"of": ["one", "two", "teacher"], "weigh": "own_domain"}}}


def run_of(tmp_path, name: str) -> wk.Run:
    return wk.load_run(tmp_path / "runs" / "north-s0" / name)


FEW = {"model": "resnet10t", "model_settings": SMALL, "steps": 2, "segment_length": 1, "batch_size": 8}


@pytest.mark.parametrize(
    "students", [TAKD, BORN_AGAIN, STAGES, PARTS], ids=["takd", "born_again", "two_stages", "inherited"]
)
def test_two_step_studies_run_in_order_and_hand_on_what_they_deploy(write, executed, one_by_one, tmp_path, students):
    teacher = {"teacher": None if students is BORN_AGAIN else FEW}
    assert one_by_one(write(students=students, common=FEW, **teacher, **ONE)) == {}
    assert executed == [f"north-s0-{name}" for name in (*["teacher"] * (students is not BORN_AGAIN), *students)]
    for name, settings in students.items():
        recorded = run_of(tmp_path, name)
        if settings.get("teacher") in students:
            assert recorded.settings["teacher"]["run"] == settings["teacher"]
            assert recorded.settings["teacher"]["strategy"] == ("wakd" if settings["teacher"] == "TA" else "last")
        if settings.get("start") == PARTS["narrow"]["start"]:
            large = run_of(tmp_path, "teacher")
            mine, theirs = (
                s["model.layer1.0.conv2.weight"] for s in (recorded.segments.initial, large.average(large.deployed))
            )
            assert torch.equal(mine, theirs[::2, ::2]) and "started from teacher, by channels" in recorded.summary()
        elif "start" in settings:
            begun = run_of(tmp_path, settings["start"])
            assert "started from hints (last)" in recorded.summary()
            for key, value in begun.average(begun.deployed).items():
                assert torch.equal(recorded.segments.initial[key], value), key


def test_experts_of_a_domain_each_teach_together(write, executed, one_by_one, tmp_path):
    file = write(students=TOGETHER, common=FEW, teacher=FEW, **ONE)
    jobs = planned_jobs(file, Place(tmp_path / "report", tmp_path / "runs"))
    assert jobs["north-s0-DG"].after == ("north-s0-one", "north-s0-two", "north-s0-teacher")
    assert one_by_one(file) == {} and executed[-1] == "north-s0-DG"
    taught = run_of(tmp_path, "DG").settings["teacher"]
    assert [one["run"] for one in taught["of"].values()] == ["one", "two", "teacher"] and taught[
        "strategy"
    ] == "own_domain"
    assert [one["split"]["sources"] for one in taught["of"].values()] == [["east"], ["south"], ["east", "south"]]
    right = {**TOGETHER, "DG": {**KD, "teacher": {**TOGETHER["DG"]["teacher"], "weigh": "right"}}}
    assert one_by_one(write(students=right, common=FEW, teacher=FEW, **ONE)) == {} and executed[4:] == ["north-s0-DG"]
    assert len([*(tmp_path / "runs" / "north-s0").glob("DG.before-*")]) == 1, (
        "how they are weighed is part of what it is"
    )


def test_a_chain_killed_between_two_links_goes_on_and_follows_what_is_deployed(
    write, executed, one_by_one, tmp_path, monkeypatch
):
    chain = {"TA": TAKD["TA"], "S": {**CE, "start": "TA"}}
    file = write(students=chain, common=FEW, teacher=FEW, **ONE)

    def dies(job, *given, **settings) -> bool:
        if job.run.name == "S":
            raise KeyboardInterrupt
        return job_files.attempt(job, *given, **settings)

    with monkeypatch.context() as here:
        here.setattr(study, "attempt", dies)
        with pytest.raises(KeyboardInterrupt):
            one_by_one(file)
    assert executed == ["north-s0-teacher", "north-s0-TA"]
    assert one_by_one(file) == {} and executed[2:] == ["north-s0-S"], "what was done stays done"
    last = {"TA": KD, "S": chain["S"]}  # where nothing is said it hands on its last iterate
    assert one_by_one(write(students=last, common=FEW, teacher=FEW, **ONE)) == {}
    assert not (tmp_path / "runs" / "north-s0" / "TA" / "deployed.json").exists()
    assert executed[3:] == ["north-s0-TA", "north-s0-S"]
    kept = [folder.name.partition(".")[0] for folder in (tmp_path / "runs" / "north-s0").glob("*.before-*")]
    assert kept == ["S"], "it started elsewhere; the assistant itself is the same recording"


def test_a_refit_is_trained_on_all_source_images_for_as_long_as_the_other_validated_best(write, executed, tmp_path):
    nothing = {"teacher": None, "window_map": None, "landscape": {"students": []}, "seeds": [0], "targets": ["north"]}
    file = write(
        students={"All": {**CE, "refit": "CE"}, "CE": {**CE, "learning_rate": 0.3}}, strategies=["last"], **nothing
    )
    page = run_study(file, say=lambda line: None, out=tmp_path / "report", runs=tmp_path / "runs")
    assert executed == ["north-s0-CE", "north-s0-All", "03_compare"]
    first, refit = (wk.load_run(tmp_path / "runs" / "north-s0" / name) for name in ("CE", "All"))
    curves = first.source_curves
    assert refit.steps == refit.settings["steps"] == curves.ends[curves.val_accuracy.argmax()]
    assert {name: len(part) for name, part in refit.split.train.items()} == {"east": 24, "south": 24}
    assert first.split.held_out and not refit.split.held_out and "whole" not in first.settings["split"]
    assert np.array_equal(refit.split.val["east"].labels, first.split.val["east"].labels)
    with pytest.raises(RunProblem, match="whole"):
        refit.check_split(first.split)
    assert "Trained on all source images" in page.read_text()
    job = planned_jobs(file)["north-s0-All"]
    assert job.after == ("north-s0-CE",) and job.given["refit"] == "CE"

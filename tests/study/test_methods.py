"""Every method is known by its name: what works is a study that plans and trains, what does not says why."""

import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import wakd_kit as wk
from wakd_kit.averaging import labels_of
from wakd_kit.cli import main
from wakd_kit.names import UnknownName
from wakd_kit.objectives import write_embeddings
from wakd_kit.reporting.parameters import describe
from wakd_kit.study.jobs import Place
from wakd_kit.study.methods import STATES, lines_of, method, methods, study_of
from wakd_kit.study.plan import plan
from wakd_kit.study.specification import load_study

CORE = ("WAKD", "OFA-KD")
# the 57 methods that the kit is meant to hold
MISSION = """XDED, Fish, Branch-Merge, VL2V-ADiP, TAKD, HARD, DDK, CutMixPick, TAID, DHO, RKD, KD++, BD-KD, DistillNearest, KL-Dist, MIX-KD, V_kD,
BAN, Meta-DMoE, CCFP, Moment matching, SinKD, RL-KD, WCoRD, MSDCRD, CAKD, ScaleKD, PESF-KD, AMD, DisWOT, StableKD, CTCD, InfiFusion, KD^3, SSLD, BCKD,
Churn KD, Flex-KD, TinyCLIP, DDN, MI-alpha, RS-KD, ULD, CLIP-KD, Margin-MSE, Proto-KD, MEKD, ProC-KD, Q/K/V relation KD, G2SD, BSD, Hybrid Distill,
DistilBERT, mAP@k-gated KD, A2D, MST-Distill, DDG""".replace("\n", " ").split(", ")
WITH_STUDY = [name for name, one in methods().items() if one.study]


def study_in(folder: Path, name: str):
    """The study that a method's lines are, as somebody would save it."""
    file = folder / "method.yaml"
    file.write_text("\n".join(lines_of(name)), encoding="utf-8")
    return load_study(file)


def test_every_method_of_the_mission_is_told_by_its_name():
    assert len(MISSION) == len(set(MISSION)) == 57
    assert [name for name in (*CORE, *MISSION) if method(name).state not in STATES] == []
    assert sum(method(name).state == "works" for name in MISSION) >= 33
    names = [other.casefold() for one in methods().values() for other in (one.name, *one.also)]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def short_of(settings: dict, short: dict) -> dict:
    """The same in a few segments, of a step or of a round between two pull-backs."""
    optimiser = settings.get("optimiser")
    every = optimiser.get("every", 1) if isinstance(optimiser, dict) else 1
    return {**settings, **short, "steps": every * (2 if every == 1 else 5), "segment_length": every}


@pytest.mark.parametrize("name", methods())
def test_what_works_can_be_run_and_what_does_not_says_why(name):
    one = method(name)
    assert one.state == "works" or one.differs
    assert bool(one.study or one.python) == (one.state != "not here")
    assert one.what and one.source and not one.what.endswith(".")


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory) -> str:
    """The digits, ten images of four classes in each domain, as a folder."""
    folder = tmp_path_factory.mktemp("digits")
    for name, examples in wk.load_domains("digits").items():
        for label, i in itertools.product(range(4), range(10)):
            (folder / name / str(label)).mkdir(parents=True, exist_ok=True)
            image = examples.images[examples.labels == label][i]
            Image.fromarray(image).save(folder / name / str(label) / f"{i}.png")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def trained_here(tmp_path_factory) -> Path:
    """Where recordings outlive the test that trained them, see ``KNOWN``."""
    return tmp_path_factory.mktemp("methods")


@pytest.mark.parametrize("name", WITH_STUDY)
def test_a_method_is_a_study_that_trains_and_answers_with_and_without_averaging(
    name, few_digits, trained_here, monkeypatch
):
    folder = trained_here / str(WITH_STUDY.index(name))
    folder.mkdir()
    if name == "VL2V-ADiP":  # from a file, which stands here for a teacher that nobody can fetch
        monkeypatch.chdir(folder)
        images = {domain: torch.randn(40, 8) for domain in wk.load_domains(few_digits)}
        write_embeddings("embeddings.safetensors", images, torch.randn(4, 8), classes=["0", "1", "2", "3"])
    study = study_in(folder, name)
    assert {"last", "WAKD"} <= {*labels_of(study.strategies)}
    short = {"steps": 2, "segment_length": 1, "batch_size": 32, "warmup": 0}
    own = {label: short_of(settings or {}, short) for label, settings in study.students.items() if label != "KD"}
    study = replace(
        study,
        **({} if name in ALL_DIGITS else {"benchmark": few_digits, "image_size": 32}),
        targets=["ink"],
        seeds=[0],
        teacher={**study.teacher, **short},
        common={**study.common, **short},
    )
    study = replace(study, students=own, reference="", also={})
    for job in plan(study, Place(folder / "report", folder / "runs")):
        if job.records:
            same = json.dumps(job.parameters, sort_keys=True).replace(str(folder), "")
            if same not in KNOWN:
                KNOWN[same] = trained(describe(job.notebook)(**job.parameters))
            elif KNOWN[same] != job.run:
                shutil.copytree(KNOWN[same], job.run)


ALL_DIGITS = {"DistillNearest"}  # on few images PARC of a teacher of two steps is below zero, and nobody would teach
KNOWN = {}  # the teacher and the experts of one method are those of another


def trained(p) -> Path:
    """The folder of the run that a job's notebook records."""
    domains = wk.load_domains(p.benchmark, **p.data())
    split = p.split(domains) if hasattr(p, "split") else wk.leave_one_out(domains, p.target, p.seed, only=p.only)
    student = p.begun(split) if hasattr(p, "begun") else wk.build_model(p.model, split.classes, **p.student())
    run = wk.train(student, split, teacher=getattr(p, "teacher", None), **p.training(), progress=False)
    assert run.complete and len(run.source_curves.val_loss) == run.settings["steps"] // p.segment_length
    return run.folder


@pytest.mark.parametrize("name", [name for name in WITH_STUDY if "also" in study_of(method(name))])
def test_a_method_that_merges_plans_its_merging(name, tmp_path):
    jobs = plan(study_in(tmp_path, name), Place(tmp_path / "report", tmp_path / "runs"))
    assert [job.name for job in jobs if not job.records] == ["07_named_pairs", "03_compare"]


def test_methods_are_listed_and_told_on_the_command_line(capsys, tmp_path):
    assert main(["list", "methods"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(methods())
    assert main(["list", "methods", "taid"]) == 0
    (tmp_path / "taid.yaml").write_text(capsys.readouterr().out)
    assert load_study(tmp_path / "taid.yaml").students["TAID"] == {"objectives": [{"name": "taid"}]}
    assert main(["list", "methods", "DDG"]) == 0 and "a different job" in capsys.readouterr().out
    assert main(["list", "methods", "TAIDD"]) == 2 and "Did you mean 'TAID'?" in capsys.readouterr().err
    assert main(["list", "strategies", "wakd"]) == 2 and "takes no name" in capsys.readouterr().err
    with pytest.raises(UnknownName, match="Unknown method"):
        method("no such")

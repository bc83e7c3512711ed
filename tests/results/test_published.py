"""Published numbers stand beside ours where every part of the setting is the same, and nowhere else."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from wakd_kit import averaging
from wakd_kit.averaging import Curves, NoWindow
from wakd_kit.objectives import combine
from wakd_kit.results import published

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
CURVES = Curves(iterates=[5000] * 10, val_loss=[1.0] * 10, val_accuracy=[0.5] * 10)


def run(name: str, target: str, seed: int, model: str, **changes) -> SimpleNamespace:
    """A run of the papers' setting, as far as its settings go."""
    split = {"benchmark": "pacs", "options": {"size": 224}, "target": target, "seed": seed}
    split["sources"] = [d for d in DOMAINS if d != target]
    settings = {
        "steps": 50_000,
        "batch_size": 64,
        "learning_rate": 5e-5,
        "optimiser": "adam",
        "weight_decay": 0.0,
        "schedule": "constant",
        "sampling": "pooled",
        "batchnorm": "frozen",
        "objectives": combine([{"name": "kd", "temperature": 5.0}]).specs,
        "student": {"name": model, "pretrained": True},
        "split": split,
    }
    own = {"last": averaging.last(CURVES), "WAKD": averaging.wakd(CURVES, begin=5000), "SWAD": NoWindow("too short")}
    return SimpleNamespace(
        name=name, settings={**settings, **changes}, choices=own, source_curves=CURVES, folder=Path(name)
    )


def study(*, targets=DOMAINS, seeds=(0, 1), teacher="resnet50", student="resnet18.a1_in1k", edit=lambda run: None):
    """Every target and seed with its teacher; accuracy is 0.8 + 0.02 x seed. ``edit`` changes each student's run."""
    runs = []
    for seed in seeds:
        for target in targets:
            pupil = run("KD", target, seed, student)
            edit(pupil)
            runs += [run("teacher", target, seed, teacher), pupil]
    rows = [
        {"student": r.name, "strategy": s, "target": r.settings["split"]["target"], "seed": r.settings["split"]["seed"]}
        for r in runs
        for s in ("last", "WAKD")
    ]
    scores = pd.DataFrame(rows).assign(role="target")
    scores["accuracy"] = 0.8 + 0.02 * scores["seed"]
    return SimpleNamespace(runs=runs, scores=scores, students=["teacher", "KD"])


def test_the_papers_setting_has_their_number_beside_ours():
    (row,) = published.beside(study()).to_dict("records")
    assert (row["student"], row["strategy"], row["published"]) == ("KD", "WAKD", 86.6)
    assert row["ours"] == pytest.approx(81) and row["sd"] == pytest.approx(2 / 2**0.5) and row["n"] == 8
    assert "arXiv 2309.11446" in row["paper"] and "Papers with Code" in row["paper"]


def test_the_label_of_the_strategy_does_not_matter_and_its_begin_does():
    def begins(step):
        def edit(run):
            finer = Curves(iterates=[2500] * 20, val_loss=[1.0] * 20, val_accuracy=[0.5] * 20)
            run.source_curves, run.choices = finer, {"WAKD": averaging.wakd(finer, begin=step)}

        return edit

    assert len(published.beside(study(edit=begins(5000)))) == 1
    assert not len(published.beside(study(edit=begins(7500))))


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 5000},
        {"batch_size": 32},
        {"learning_rate": 1e-4},
        {"optimiser": "adamw"},
        {"schedule": "cosine"},
        {"sampling": "balanced"},
        {"batchnorm": "recalibrate"},
        {"objectives": combine([{"name": "kd", "temperature": 4.0}]).specs},
        {"objectives": combine([{"name": "kd", "temperature": 5.0, "weight": 0.5}]).specs},
        {"objectives": combine([{"name": "kd", "temperature": 5.0}, "ce"]).specs},
        {"student": {"name": "resnet18", "pretrained": False}},
        {"student": {"name": "resnet10t", "pretrained": True}},
        {"split": {"options": {"size": 64}}},
        {"split": {"benchmark": "officehome"}},
        {"split": {"benchmark": "pacs_extra"}},
    ],
    ids=str,
)
def test_anything_else_has_no_published_number(setting):
    def edit(run):
        for key, value in copy.deepcopy(setting).items():
            run.settings[key] = {**run.settings[key], **value} if key == "split" else value

    assert not len(published.beside(study(edit=edit)))


def test_another_teacher_no_teacher_and_a_domain_that_was_not_left_out_are_other_settings():
    assert not len(published.beside(study(teacher="resnet18")))
    alone = study()
    alone.runs = [run for run in alone.runs if run.name != "teacher"]
    assert not len(published.beside(alone))
    assert not len(published.beside(study(targets=DOMAINS[:3])))


def test_a_strategy_that_was_evaluated_and_is_not_compared_has_no_row():
    some = study()
    some.scores = some.scores[some.scores["strategy"] != "WAKD"]
    assert not len(published.beside(some))


def test_one_run_of_another_setting_is_enough_to_compare_nothing():
    mixed = study()
    mixed.runs[1].settings["steps"] = 49_000
    assert not len(published.beside(mixed))


def test_a_benchmark_in_a_folder_of_its_own_is_the_same():
    def edit(run):
        run.settings["split"]["benchmark"] = "pacs:/data/PACS"

    found = study(edit=edit)
    for run in found.runs:
        edit(run)
    assert len(published.beside(found)) == 1


def test_every_number_says_where_it_was_read():
    assert len({(n.benchmark, n.student, n.teacher, n.strategy) for n in published.NUMBERS}) == len(published.NUMBERS)
    for number in published.NUMBERS:
        assert (
            0 < number.accuracy < 100 and "arXiv" in number.paper and number.source and "50,000 steps" in number.setting
        )

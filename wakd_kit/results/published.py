"""Numbers that the papers published, to stand beside ours where the setting is the same. Marked as published wherever shown.

What is here was read in the place that ``source`` names, and nothing else: the per-domain tables, spreads and the rows of
SWAD and SMA of the WAKD paper were not at hand, and are not here. The one-for-all paper (arXiv 2310.19444) reports ImageNet
and CIFAR-100, no leave-one-domain-out benchmark, so there is nothing of it to stand beside a table of this kit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ..averaging import Coefficients
from ..runs.run import Run
from .collect import Recorded
from .differences import summary

PAPER = "Berezovskiy and Morozov 2023, arXiv 2309.11446"
SOURCE = "average accuracies that Papers with Code lists for the paper"
RECIPE = (
    "student 50,000 steps of Adam at 5e-5, batch 64, 224 px, KL to the teacher at T = 5 alone, BatchNorm frozen, "
    "average from step 5,000, three seeds (configurations of vorobeevich/distillation-in-dg)"
)


@dataclass(frozen=True)
class Number:
    """One published accuracy: mean over the unseen domains of a benchmark, in per cent, and what it was measured on."""

    benchmark: str
    student: str
    teacher: str
    accuracy: float
    strategy: str = "wakd"
    paper: str = PAPER
    source: str = SOURCE
    setting: str = RECIPE


NUMBERS = (
    Number("pacs", "resnet18", "resnet50", 86.6),
    Number("pacs", "deit_tiny_distilled_patch16_224", "deit_small_distilled_patch16_224", 87.6),
    Number("officehome", "resnet18", "resnet50", 66.7),
    Number("officehome", "deit_tiny_distilled_patch16_224", "deit_small_distilled_patch16_224", 70.5),
)

TRAINING = {
    "steps": 50_000,
    "batch_size": 64,
    "learning_rate": 5e-5,
    "optimiser": "adam",
    "weight_decay": 0.0,
    "schedule": "constant",
    "sampling": "pooled",
    "batchnorm": "frozen",
}


def beside(study: Recorded) -> pd.DataFrame:
    """Published numbers of settings that a study repeats, with ours: ``student, strategy, published, ours, sd, n, paper``.

    A setting is the same when benchmark, image size, models, pretraining, training recipe, objective and the strategy with
    its begin are, and all domains were left out in turn. Not compared are augmentation, how the teacher was trained and
    which ImageNet weights a model started from (the paper: torchvision's for ResNets). Only strategies that the study
    compares have a row. ``ours`` is the mean over targets,
    ``sd`` its spread over seeds; per cent.
    """
    ours = summary(study.scores).set_index(["student", "strategy"])
    rows = []
    for student in [name for name in study.students if name != "teacher"]:
        runs = [run for run in study.runs if run.name == student]
        teachers = [run for run in study.runs if run.name == "teacher"]
        for number in NUMBERS:
            labels = {_label(run, number, teachers) for run in runs}
            label = labels.pop()
            if labels or (student, label) not in ours.index or not _all_left_out(runs):
                continue
            own = ours.loc[(student, label)]
            row = {"student": student, "strategy": label, "published": number.accuracy, "ours": own["mean"]}
            rows.append(row | {"sd": own["sd"], "n": int(own["n"]), "paper": f"{number.paper} ({number.source})"})
    return pd.DataFrame(rows, columns=["student", "strategy", "published", "ours", "sd", "n", "paper"])


def _label(run: Run, number: Number, teachers: list[Run]) -> str | None:
    """The label of the strategy that repeats a published number on this run; None when the run is of another setting."""
    settings, split = run.settings, run.settings["split"]
    of_teacher = [t for t in teachers if t.settings["split"] == split]
    same = (
        str(split["benchmark"]).split(":")[0] == number.benchmark
        and split["options"].get("size") == 224
        and all(settings[name] == value for name, value in TRAINING.items())
        and [_plain(spec) for spec in settings["objectives"]] == [("kd", 1.0, 5.0, "forward")]
        and _is(run, number.student)
        and len(of_teacher) == 1
        and _is(of_teacher[0], number.teacher)
    )
    if not same:
        return None
    # the iterate at step 5,000 is the first that their code averages; ours, begin=5000, is the one after it
    begins = {
        label: _begin(run, c) for label, c in run.choices.items() if getattr(c, "strategy", "") == number.strategy
    }
    return next((label for label, begin in begins.items() if begin in (5000, 5001)), None)


def _plain(spec: Mapping) -> tuple:
    return spec["name"], spec.get("weight", 1.0), spec.get("temperature"), spec.get("kind", "forward")


def _is(run: Run, name: str) -> bool:
    """Whether a run began with ImageNet weights of this architecture, whatever their tag."""
    student = run.settings["student"]
    return student["name"].split(".")[0] == name and bool(student.get("pretrained") or student.get("weights"))


def _begin(run: Run, coefficients: Coefficients) -> int:
    return int(run.source_curves.begins[coefficients.window()[0]])


def _all_left_out(runs: list[Run]) -> bool:
    left_out = {run.settings["split"]["target"] for run in runs}
    return left_out == {*runs[0].settings["split"]["sources"], runs[0].settings["split"]["target"]}

"""All mechanisms of a training in one: a stopped one goes on bit for bit, and answers with and without averaging."""

import torch

import wakd_kit as wk

from .stopped import quick, stopped_and_resumed, student
from .victims import small_split


def test_everything_at_once_stopped_within_a_round_resumes_bit_equal(tmp_path, monkeypatch):
    split = small_split()
    run = stopped_and_resumed(
        split,
        tmp_path,
        monkeypatch,
        after=5,
        model=lambda: student(inside={"after": [0], "name": "mixstyle", "p": 0.9}),
        teacher=quick(split, tmp_path / "teacher", steps=2, segment_length=1),
        objectives=["ce", "mutual", "lfme", {"name": "kd", "on": "mixed"}, {"name": "pesf_kd", "on": "mixed"}],
        segment_length=2,
        sampling={"name": "gap", "every": 0.25},
        second={"name": "cutmix", "apart": True, "pick": "divergence"},
        optimiser={"name": "sgd", "pull_back": 0.5, "every": 2},
        declare=["wakd", {"name": "ema", "decay": 0.5}],
    )
    choices = wk.choose(run, ["last", "uniform", {"name": "ema", "decay": 0.5}])
    scored = wk.evaluate(run, choices, split)
    assert {*scored["strategy"]} == {*choices} and scored["accuracy"].notna().all()
    last, mean = (run.average(choices[name], batchnorm="average") for name in ("last", "uniform"))
    assert not torch.equal(last["model.fc.weight"], mean["model.fc.weight"])
    assert {"share/a", "train/mutual", "train/kd", "train/pesf_kd"} <= {*run.table}

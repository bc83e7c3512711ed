"""A student that starts from another run: the same network, the parameters that were deployed, and what that run has seen."""

import pytest
import torch

import wakd_kit as wk
from wakd_kit.runs.settings import Settings
from wakd_kit.runs.start import started

from ..conftest import SMALL

SHORT = {"steps": 2, "segment_length": 1, "batch_size": 8, "device": "cpu", "progress": False}


def small(split, seed=1) -> torch.nn.Module:
    return wk.build_model("resnet10t", split.classes, seed=seed, **SMALL)


def test_it_starts_at_the_deployed_average_whatever_it_was_built_with(copied, split):
    coefficients = wk.choose(copied, [{"name": "wakd", "begin": 0.5}])["wakd"]
    copied.deploy(coefficients)
    student = started(small(split), copied.folder, split, Settings())
    for name, value in copied.average(coefficients).items():
        assert torch.equal(student.state_dict()[name], value), name
    assert student.spec["started_from"] == "copied (wakd)"


def test_a_run_s_model_is_a_student_and_a_resumed_training_knows_where_it_started(copied, split, tmp_path):
    run = wk.train(copied.model(), split, save_to=tmp_path / "on", **SHORT)
    again = wk.train(copied.model(), split, save_to=tmp_path / "on", resume=True, **SHORT)
    assert again.folder == run.folder
    with pytest.raises(Exception, match="other initial parameters"):
        wk.train(small(split), split, save_to=tmp_path / "on", resume=True, **SHORT)


def test_a_start_that_has_seen_the_unseen_domain_is_refused(copied, domains, tmp_path):
    other = wk.leave_one_out(domains, "north", seed=0)
    student = started(small(other), copied.folder, other, Settings())
    with pytest.raises(
        ValueError, match="The student, or a model that it learned from, was trained on 'north', the domain that should"
    ):
        wk.train(student, other, save_to=tmp_path / "leak", **SHORT)


def test_another_network_is_refused_with_what_differs(copied, split):
    wide = wk.build_model("resnet10t", split.classes, seed=1, **{**SMALL, "channels": (4, 8, 8, 16)})
    with pytest.raises(
        ValueError,
        match=r"copied trained another network than resnet10t, which should start from it: .* there and .* here",
    ):
        started(wide, copied.folder, split, Settings())

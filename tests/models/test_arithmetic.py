"""What a training sets of torch's and puts back, networks that are only asked, and what compiling needs."""

import os
import subprocess
import sys

import pytest
import torch

from wakd_kit.models import arithmetic
from wakd_kit.models.arithmetic import autocast, check_compiles, computing
from wakd_kit.models.fold import frozen

from ..families import TINY, images, tiny

CPU = torch.device("cpu")


def known():
    cudnn = torch.backends.cudnn
    return (
        torch.get_float32_matmul_precision(),
        cudnn.allow_tf32,
        cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.mark.parametrize("precision, matmul", [("float32", "highest"), ("tf32", "high"), ("bfloat16", "highest")])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_training_sets_what_it_asks_for_and_puts_everything_back(monkeypatch, precision, matmul, deterministic):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", precision != "tf32")  # whatever somebody has set
    torch.set_float32_matmul_precision("medium")
    before = known()
    with pytest.raises(KeyError), computing(torch.device("cuda"), precision, deterministic=deterministic):
        assert known() == (matmul, precision == "tf32", not deterministic, deterministic)
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
        raise KeyError
    assert known() == before
    torch.set_float32_matmul_precision("highest")
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_float32_is_float32_wherever_the_kit_computes():
    said = "import torch, wakd_kit; from wakd_kit.models import build; print(torch.backends.cudnn.allow_tf32)"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("family", TINY)
def test_a_frozen_twin_answers_as_the_model_does_which_stays_as_it_is(family):
    model = tiny(family).eval()
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "running_var"):
                module.running_mean.uniform_(-1, 1), module.running_var.uniform_(0.5, 2)
    before = {name: (t.data_ptr(), t.clone()) for name, t in model.state_dict().items()}
    with torch.no_grad():
        expected, found = model(images()), frozen(model, half=False)(images())
        with autocast(CPU, "bfloat16"):
            rounded, half = frozen(model, half=False)(images()), frozen(model, half=True)(images())
    for one, other in zip((expected.logits, *expected.maps), (found.logits, *found.maps)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert torch.equal(rounded.logits, half.logits), "autocast rounds them at every step: done once, it is the same"
    after = model.state_dict()
    assert all(after[n].data_ptr() == at and torch.equal(after[n], t) for n, (at, t) in before.items())


def test_without_a_compiler_nothing_is_compiled_and_that_is_said(monkeypatch):
    monkeypatch.setattr(arithmetic.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler on the CPU, and there is none: install g\+\+"):
        check_compiles(CPU)
    check_compiles(torch.device("cuda"))  # Triton brings its own

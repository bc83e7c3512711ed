"""Objectives against numbers that published code produced, and how a list of them is summed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from wakd_kit import objectives
from wakd_kit.models import Output
from wakd_kit.objectives import ce, combine, kd
from wakd_kit.registry import UnknownName

GOLDEN = Path(__file__).parent / "golden"
ON_LOGITS = [n for n in objectives.objectives if objectives.objectives.about(n).needs <= {"labels", "teacher"}]


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "objectives.npz")


@pytest.fixture
def batch(golden):
    student = torch.tensor(golden["in/logits_s"], requires_grad=True)
    return student, torch.tensor(golden["in/logits_t"]), torch.tensor(golden["in/labels"])


# ---- values and gradients of published code


@pytest.mark.parametrize("case", ["kd_T1", "kd_T4", "kd_T5", "wakd_pure_kl_T5", "kd_mdistiller_T4"])
def test_kd_equals_published_code(golden, batch, case):
    hyper = json.loads((GOLDEN / "objectives.json").read_text())["cases"][case]["hyper"]
    (temperature,) = hyper.values()
    loss = kd(*batch, temperature=temperature)
    loss.backward()
    assert abs(loss.item() - golden[f"case/{case}/loss"]) < 1e-10
    np.testing.assert_allclose(batch[0].grad, golden[f"case/{case}/grad_logits_s"], rtol=0, atol=1e-9)


def test_kd_is_the_sum_that_its_docstring_says(batch):
    student, teacher, _ = (t.detach().numpy() for t in batch)
    total = 0.0
    for s, t in zip(student, teacher):
        p, q = np.exp(t / 3) / np.exp(t / 3).sum(), np.exp(s / 3) / np.exp(s / 3).sum()
        total += sum(p[c] * math.log(p[c] / q[c]) for c in range(7))
    assert kd(*batch, temperature=3.0).item() == pytest.approx(9 * total / len(student), abs=1e-12)


def test_papers_temperature_is_the_default(batch):
    assert kd(*batch).item() == kd(*batch, temperature=5.0).item() != kd(*batch, temperature=4.0).item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ce_is_minus_log_probability_of_the_smoothed_label(batch, smoothing):
    student, _, labels = (t.detach().numpy() for t in batch)
    total = 0.0
    for z, y in zip(student, labels):
        log_p = z - math.log(np.exp(z).sum())
        total -= (1 - smoothing) * log_p[y] + smoothing * log_p.mean()
    assert ce(*batch, label_smoothing=smoothing).item() == pytest.approx(total / len(labels), abs=1e-12)


# ---- what holds for every objective on logits


@pytest.mark.parametrize("name", ON_LOGITS)
def test_half_precision_logits_give_a_float32_loss(batch, name):
    student, teacher, labels = batch
    loss = objectives.get(name)(student.bfloat16(), teacher.bfloat16(), labels)
    exact = objectives.get(name)(student.bfloat16().double(), teacher.bfloat16().double(), labels)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("name", ON_LOGITS)
def test_confident_logits_give_finite_losses_and_gradients(name):
    student = (200 * torch.eye(4)[[1, 2, 3, 0]]).requires_grad_()
    loss = objectives.get(name)(student, 200 * torch.eye(4), torch.arange(4))
    loss.backward()
    assert loss.isfinite() and loss > 1 and student.grad.isfinite().all() and student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ON_LOGITS)
def test_only_the_student_is_trained_and_taps_count_as_logits(batch, name):
    student, teacher, labels = batch
    teacher.requires_grad_()
    bare = objectives.get(name)(student, teacher, labels)
    bare.backward()
    assert teacher.grad is None
    tapped = objectives.get(name)(Output(student, student), Output(teacher, teacher), labels)
    assert tapped.item() == bare.item()


def test_registering_leaves_a_function_as_it_is():
    assert objectives.get("kd") is kd and objectives.get("ce") is ce
    assert objectives.objectives.about("kd").needs == {"teacher"}


# ---- weighted lists


def test_a_list_is_the_weighted_sum_of_its_terms(batch):
    combined = combine([{"name": "ce", "weight": 0.1}, {"name": "kd", "temperature": 4, "weight": 0.9}])
    total, terms = combined(*batch)
    first, second = ce(*batch), kd(*batch, temperature=4)
    assert total.item() == pytest.approx(0.1 * first.item() + 0.9 * second.item(), abs=1e-12)
    assert terms == {"ce": first, "kd": second} and not any(t.requires_grad for t in terms.values())
    total.backward()
    assert batch[0].grad.abs().sum() > 0


def test_nothing_is_added_to_what_is_listed(batch):
    assert combine("kd")(*batch)[0].item() == kd(*batch).item()
    assert combine({"name": "kd", "weight": 2})(*batch)[0].item() == 2 * kd(*batch).item()


def test_specs_are_complete_so_that_a_run_records_every_setting():
    assert combine(["ce", {"name": "kd", "weight": 2}]).specs == [
        {"name": "ce", "weight": 1.0, "label_smoothing": 0.0},
        {"name": "kd", "weight": 2.0, "temperature": 5.0},
    ]


def test_one_objective_at_two_settings_has_two_labels(batch):
    combined = combine([{"name": "kd", "temperature": 1}, {"name": "kd", "temperature": 4}])
    assert combined.labels == ["kd[temperature=1]", "kd[temperature=4]"]
    terms = combined(*batch)[1]
    assert [t.item() for t in terms.values()] == [kd(*batch, temperature=1).item(), kd(*batch, temperature=4).item()]


def test_a_list_knows_what_it_needs():
    assert combine("kd").needs("teacher") and not combine("kd").needs("labels")
    assert combine("ce").needs("labels") and not combine("ce").needs("teacher")
    assert not combine(["ce", "kd"]).needs("maps")


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [
        ([], "No objective given"),
        ([{"temperature": 4}], 'Every objective needs a "name"'),
        (
            [{"name": "kd", "temprature": 4}],
            "Unknown setting of objective 'kd' 'temprature'. Did you mean 'temperature'?",
        ),
        ([{"name": "kd", "temperature": "4"}], "Setting 'temperature' of objective 'kd' is a number; got '4'."),
        ([{"name": "kd", "temperature": 0}], "temperature is a positive number; got 0."),
        ([{"name": "kd", "temperature": math.nan}], "temperature is a positive number; got nan."),
        ([{"name": "ce", "label_smoothing": 1.5}], "label_smoothing is from 0 up to, not including, 1; got 1.5."),
        ([{"name": "kd", "weight": -1}], "The weight of objective 'kd' is a number >= 0; got -1."),
        ([{"name": "kd", "weight": True}], "is a number >= 0; got True."),
        ([{"name": "kd", "weight": 0}], "weights sum to zero"),
        (["kd", {"name": "kd", "temperature": 5.0}], "kd[temperature=5.0] is listed twice with the same settings"),
    ],
)
def test_lists_that_cannot_be_trained_are_a_sentence(specs, sentence):
    with pytest.raises(ValueError) as problem:
        combine(specs)
    assert sentence in str(problem.value)


def test_an_unknown_objective_is_told_the_nearest():
    with pytest.raises(UnknownName) as problem:
        combine("kdd")
    assert str(problem.value).startswith("Unknown objective 'kdd'. Did you mean 'kd'?")

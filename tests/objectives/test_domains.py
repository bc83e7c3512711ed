"""Penalties across source domains against slow formulas, with domains that are uneven, alone or not there."""

import pytest
import torch

import wakd_kit as wk
from tests.reference import domains as slow
from wakd_kit.models.tap import Output
from wakd_kit.objectives import combine

from ..conftest import SMALL

# of 9 examples: three domains; two, of which one has a single example; one alone. A fourth source is never there.
MIXTURES = [[0, 1, 2, 0, 1, 2, 0, 0, 2], [1, 1, 1, 2, 1, 1, 1, 1, 1], [2] * 9]
PENALTIES = ["moments", "coral", "vrex", "irm"]


def batch(which):
    generator = torch.Generator().manual_seed(3)
    logits, pooled = (torch.randn(9, n, dtype=torch.float64, generator=generator).requires_grad_() for n in (5, 4))
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 0, 1, 2])
    return Output(logits, pooled, ()), labels, torch.eye(4)[which]


def parts(values, labels, which):
    """[(rows, labels)] of each domain that is there."""
    rows, labels = values.tolist(), labels.tolist()
    return [
        ([rows[i] for i, w in enumerate(which) if w == d], [labels[i] for i, w in enumerate(which) if w == d])
        for d in sorted({*which})
    ]


@pytest.mark.parametrize("which", MIXTURES)
@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_equals_its_formula_and_is_zero_of_one_domain(name, which):
    student, labels, domains = batch(which)
    loss, terms = combine(name).prepare(student, None, steps=1)(student, None, labels, step=1, domains=domains)
    of_features = name in ("moments", "coral")
    of_domain = parts(student.pooled if of_features else student.logits, labels, which)
    expected = getattr(slow, name)([rows for rows, _ in of_domain] if of_features else of_domain)
    assert terms[name].item() == pytest.approx(expected, abs=1e-8)
    loss.backward()
    gradient = student.pooled.grad if of_features else student.logits.grad
    assert gradient.isfinite().all()
    if len({*which}) == 1 and name != "irm":
        assert terms[name].item() == 0 and not gradient.any()


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_equal_finite_differences(name):
    student, labels, domains = batch(MIXTURES[0])
    penalty = combine(name).prepare(student, None, steps=1)
    place = "pooled" if name in ("moments", "coral") else "logits"

    def loss(values):
        return penalty(student._replace(**{place: values}), None, labels, step=1, domains=domains)[0]

    assert torch.autograd.gradcheck(loss, getattr(student, place))


@pytest.mark.parametrize("name", ["moments", "coral", "vrex"])
def test_domains_that_are_alike_cost_nothing(name):
    student, labels, _ = batch(MIXTURES[0])
    twice = Output(student.logits.repeat(2, 1), student.pooled.repeat(2, 1), ())
    domains = torch.eye(3)[[0] * 9 + [2] * 9]
    loss, _ = combine(name).prepare(twice, None, steps=1)(twice, None, labels.repeat(2), step=1, domains=domains)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert (
        torch.nan_to_num(student.pooled.grad if student.pooled.grad is not None else student.logits.grad).abs().max()
        < 1e-9
    )


def test_group_dro_leans_on_what_is_hard_and_remembers_who_is_absent():
    student, labels, _ = batch(MIXTURES[0])
    objective = combine({"name": "group_dro", "rate": 0.5}).prepare(student, None, steps=3).double()
    losses, steps = [], []
    for which in ([0, 1, 2, 0, 1, 2, 0, 0, 2], [0, 0, 2, 2, 2, 0, 0, 0, 2], [1, 1, 2, 0, 0, 0, 1, 2, 2]):
        losses.append(objective(student, None, labels, step=1, domains=torch.eye(4)[which])[0].item())
        steps.append(dict(zip(sorted({*which}), parts(student.logits, labels, which))))
    assert losses == pytest.approx(slow.group_dro(steps, 0.5), abs=1e-7)
    before = objective.state_dict()
    objective.eval()(student, None, labels, step=1, domains=torch.eye(4)[MIXTURES[0]])
    assert all(torch.equal(t, before[name]) for name, t in objective.state_dict().items())  # measuring moves nothing


def test_more_domains_than_group_dro_holds_are_a_sentence():
    student, labels, _ = batch(MIXTURES[0])
    objective = combine("group_dro").prepare(student, None, steps=3)
    with pytest.raises(ValueError, match="group_dro weighs at most 64 source domains; there are 65"):
        objective(student, None, labels, step=1, domains=torch.eye(65)[:9])


def test_training_hands_every_objective_the_domains_of_its_batch(split, tmp_path, monkeypatch):
    seen, real = [], wk.objectives.Combined.forward

    def looked(combined, *given, index, domains, **more):
        seen.append((index.clone(), domains.clone()))
        return real(combined, *given, index=index, domains=domains, **more)

    monkeypatch.setattr(wk.objectives.Combined, "forward", looked)
    student = wk.build_model("resnet10t", split.classes, seed=0, **SMALL)
    short = dict(steps=4, segment_length=2, batch_size=8, batchnorm_batches=2)
    both = ["group_dro", "coral"]
    run = wk.train(
        student, split, objectives=both, sampling="balanced", save_to=tmp_path / "run", progress=False, **short
    )
    sizes = [len(examples) for examples in split.train.values()]
    source_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    trained = [(index, domains) for index, domains in seen if len(index) == 8 and domains.shape[1] == len(sizes)]
    assert len(trained) == 4
    for index, domains in trained:
        assert torch.equal(domains.argmax(1), source_of[index]) and torch.equal(domains.sum(1), torch.ones(8))
    assert {"train/group_dro", "train/coral"} <= {*run.table.columns}

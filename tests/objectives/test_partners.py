"""Objectives that own networks: against plain loops, frozen ones against kd, and that a stopped run has them back."""

import copy

import pytest
import torch
import torch.nn.functional as F

import wakd_kit as wk
from wakd_kit.checks import make
from wakd_kit.data.augment import augment, views_from
from wakd_kit.data.batches import SourceBatches, seed_step
from wakd_kit.models.tap import Output
from wakd_kit.names import ParameterError, UnknownName
from wakd_kit.objectives import combine, partners
from wakd_kit.runs.optimiser import optimiser_for, set_learning_rate
from wakd_kit.runs.settings import Settings

from ..conftest import SMALL
from ..runs.stopped import quick, stopped_and_resumed, student
from ..runs.victims import small_split


@pytest.fixture(scope="module")
def split():
    return small_split()


@pytest.fixture(scope="module")
def teacher(split, tmp_path_factory):
    return quick(split, tmp_path_factory.mktemp("teacher") / "run")


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)
    z_s = torch.randn(6, 3, generator=rng).requires_grad_()
    return z_s, torch.rand(6, 3, 4, 4, generator=rng), torch.arange(6) % 3


def built(spec, z_s):
    return combine(spec).prepare(z_s, None, steps=1, images=torch.zeros(6, 3, 4, 4))


def divergence(target, other, temperature=1.0):
    log_p, log_q = F.log_softmax(target / temperature, 1), F.log_softmax(other / temperature, 1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)


def test_two_learn_from_labels_and_from_each_other(batch):
    z_s, images, labels = batch
    combined = built([{"name": "mutual", "temperature": 2.0}], z_s)
    partner = combined.parts["0"].partner
    loss, _ = combined(z_s, None, labels, images=images)
    loss.backward()
    ours, theirs = z_s.grad.clone(), [p.grad.clone() for p in partner.parameters()]
    z_s.grad = None
    partner.zero_grad()
    z_p = partner(images).logits
    divergence(z_p.detach(), z_s, 2.0).mean().backward()
    torch.testing.assert_close(ours, z_s.grad)
    (F.cross_entropy(z_p, labels) + divergence(z_s.detach(), z_p, 2.0).mean()).backward()
    for got, parameter in zip(theirs, partner.parameters()):
        torch.testing.assert_close(got, parameter.grad)


def test_a_frozen_partner_is_a_teacher_bit_for_bit(split, tmp_path, monkeypatch):
    known = wk.build_model("resnet10t", 3, seed=5, **SMALL).to(memory_format=torch.channels_last)
    real = partners.partner_of
    monkeypatch.setattr(
        partners, "partner_of", lambda pair, model: copy.deepcopy(known) if pair.spec else real(pair, model)
    )
    frozen = {"name": "mutual", "rate": 0, "temperature": 5.0}
    runs = [
        quick(split, tmp_path / "frozen", objectives=["ce", frozen]),
        quick(split, tmp_path / "taught", teacher=copy.deepcopy(known), objectives=["ce", "kd"]),
    ]
    ends = [run.segments.read(1, "end") for run in runs]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert runs[0].table["train/mutual"].tolist() == runs[1].table["train/kd"].tolist()


@pytest.mark.parametrize("through", [True, False])
def test_the_surer_one_teaches_example_by_example(batch, through):
    z_s, images, labels = batch
    combined = built([{"name": "bi_kd", "through_targets": through}], z_s)
    partner = combined.parts["0"].partner
    combined(z_s, None, labels, images=images)[0].backward()
    ours, theirs = z_s.grad.clone(), [p.grad.clone() for p in partner.parameters()]
    z_s.grad = None
    partner.zero_grad()
    z_p, total, teaching = partner(images).logits, 0.0, set()
    for s, p, y in zip(z_s, z_p, labels):
        target, taught = (p, s) if p.softmax(0)[y] > s.softmax(0)[y] else (s, p)
        teaching.add(target is p)
        target = target if through else target.detach()
        total = total + divergence(target[None], taught[None])[0] / 6 - p.log_softmax(0)[y] / 6
    assert teaching == {True, False}
    total.backward()
    torch.testing.assert_close(ours, z_s.grad)
    for got, parameter in zip(theirs, partner.parameters()):
        torch.testing.assert_close(got, parameter.grad)


def test_lfme_is_a_loop_of_experts_with_optimisers_of_their_own(split, tmp_path, monkeypatch):
    known, real = [wk.build_model("resnet10t", 3, seed=seed, **SMALL) for seed in (7, 8)], partners.partner_of
    given = iter([copy.deepcopy(one) for one in known])
    monkeypatch.setattr(partners, "partner_of", lambda pair, model: next(given) if pair.spec else real(pair, model))
    run = quick(split, tmp_path / "run", objectives=["ce", "lfme"], sampling="balanced", views="photographs")
    networks = [*known, student().to(memory_format=torch.channels_last)]
    optimisers = [torch.optim.Adam(network.train().parameters(), lr=1e-2, fused=True) for network in networks]
    data, generator = SourceBatches(split, 8, "balanced", 0, torch.device("cpu")), torch.Generator()
    for step in range(1, 9):
        seed_step(generator, 0, step)
        images, labels, of_batch = data.batch(step)
        x, guide = augment(images, views_from("photographs"), generator), torch.zeros(8, 3)
        z_s = networks[-1](x, maps=False).logits
        for domain in (0, 1):
            own = of_batch["domains"][:, domain] == 1
            assert own.sum() == 4
            z = networks[domain](x[own], maps=False).logits
            guide[own] = z.softmax(1).detach()
            optimisers[domain].zero_grad()
            F.cross_entropy(z, labels[own]).backward()
            optimisers[domain].step()
        optimisers[-1].zero_grad()
        (F.cross_entropy(z_s, labels) + F.mse_loss(z_s, guide)).backward()
        optimisers[-1].step()
    end = run.segments.read(1, "end")
    for name, tensor in networks[-1].state_dict().items():
        torch.testing.assert_close(end[name], tensor, rtol=1e-4, atol=1e-5)


def test_moving_numbers_drive_apart_what_the_rest_of_the_partner_holds_together():
    like = student(layers=(1, 1, 1, 1))
    images, labels = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    combined = combine([{"name": "ccfp", "meaning": 0.5, "apart": 2.0}])
    combined.extended(like, None)
    combined.prepare(like(images), None, steps=1, images=images)
    part = combined.parts["0"]
    assert len(part.moved) == 4 and all((m.gamma == 0).all() and (m.beta == 0).all() for m in part.moved)
    with torch.no_grad():  # nothing is moved yet: the network as it is, and its own statistics
        unmoved = wk.build_model("resnet10t", 3, **{**SMALL, "layers": (1, 1, 1, 1)}).train()
        unmoved.load_state_dict({n: t for n, t in part.partner.state_dict().items() if "perturbed" not in n})
        torch.testing.assert_close(
            copy.deepcopy(part.partner)(images).logits, unmoved(images).logits, rtol=1e-3, atol=1e-4
        )
    output = like(images)._replace(logits=(z_s := torch.randn(6, 3).requires_grad_()))
    twin = copy.deepcopy(part.partner)
    combined(output, None, labels, images=images)[0].backward()
    seen = twin(images)
    held = 0.5 * ((z_s.detach() - seen.logits) ** 2).mean() + F.cross_entropy(seen.logits, labels)
    gram = [torch.einsum("ncx,ndx->ncd", f, f) / f[0].numel() for f in (m.flatten(2) for m in seen.maps)]
    theirs = [torch.einsum("ncx,ndx->ncd", f, f) / f[0].numel() for f in (m.flatten(2).detach() for m in output.maps)]
    driven = -2.0 * sum(((a - b) ** 2).sum().sqrt() for a, b in zip(gram, theirs))
    names, parameters = zip(*twin.named_parameters())
    of_held, of_driven = (
        torch.autograd.grad(of, parameters, retain_graph=True, allow_unused=True) for of in (held, driven)
    )
    for name, parameter, a, b in zip(names, part.partner.parameters(), of_held, of_driven):
        expected = a + b if "perturbed" in name else a
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(z_s.grad, (z_s.detach() - seen.logits.detach()) / 18)


def test_an_adapter_makes_a_teacher_that_the_student_can_follow():
    rng = torch.Generator().manual_seed(1)
    z_s, z_t = (torch.randn(6, 3, generator=rng) for _ in range(2))
    taught, labels = Output(z_t, torch.randn(6, 4, generator=rng)), torch.arange(6) % 3
    z_s.requires_grad_()
    combined = combine([{"name": "pesf_kd", "hidden": 5}]).prepare(z_s, taught, steps=1)
    adapter = combined.parts["0"].adapter
    assert [part.out_features for part in adapter if hasattr(part, "out_features")] == [3, 5, 3]
    loss, terms = combined(z_s, taught, labels)
    adapted = z_t - adapter(taught.pooled)
    by_hand = divergence(adapted, z_s, 4.0).mean() + F.cross_entropy(adapted, labels)
    torch.testing.assert_close(terms["pesf_kd"], by_hand.detach())
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in adapter.parameters()) and z_s.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "objectives",
    [["ce", "mutual"], ["ce", {"name": "bi_kd", "rate": 0.5}], ["ce", "lfme"], ["ce", "pesf_kd"], ["ce", "ccfp"]],
    ids=["mutual", "bi_kd", "lfme", "pesf_kd", "ccfp"],
)
def test_networks_of_objectives_survive_a_kill(split, teacher, tmp_path, monkeypatch, objectives):
    taught = {"teacher": teacher} if "pesf_kd" in objectives else {}
    run = stopped_and_resumed(split, tmp_path, monkeypatch, after=6, objectives=objectives, **taught)
    assert run.segments.read(1, "end").keys() == student().state_dict().keys(), "the student alone is recorded"


def test_a_partner_is_like_the_student_or_what_is_named_and_never_its_copy(split):
    like, model = student(), "resnet10t_w8"
    found = {}
    for name in (None, model):
        combined = combine([{"name": "mutual", "model": name}])
        combined.extended(like, None)
        output = Output(torch.zeros(2, 3), torch.zeros(2, 8))
        found[name] = combined.prepare(output, None, steps=1, seed=0).parts["0"].partner
    assert found[model].spec["name"] == model and found[None].spec["name"] == "resnet10t"
    ours, theirs = like.state_dict(), found[None].state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    assert not torch.equal(ours["model.conv1.0.weight"], theirs["model.conv1.0.weight"])


def test_parameters_of_an_objective_have_the_rate_that_it_says():
    z_s, settings = torch.zeros(2, 3), make(Settings, {"learning_rate": 0.1, "warmup": 4})
    model = torch.nn.Linear(2, 2)
    plain = optimiser_for(model, combine("ce").prepare(z_s, None, steps=1), settings, "foreach")
    assert len(plain.param_groups) == 1 and "rate" not in plain.param_groups[0], "checkpoints stay what they were"
    several = combine(["ce", "mutual", {"name": "bi_kd", "rate": 0.25}]).prepare(z_s, None, steps=1)
    optimiser = optimiser_for(model, several, settings, "foreach")
    set_learning_rate(optimiser, settings, 2)
    assert [(group["lr"], len(group["params"])) for group in optimiser.param_groups] == [(0.05, 4), (0.0125, 2)]


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, images):
        return self.layer(images.mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "objective", "sentence"),
    [
        (Own, "mutual", "No network like Own can be built from its name; give the objective a model of timm's"),
        (student, {"name": "lfme", "model": "resnet10t_w9"}, "Did you mean 'resnet10t_w8'"),
        (student, {"name": "mutual", "rate": -1}, "rate is a number >= 0; got -1"),
        (student, {"name": "bi_kd", "rate": 0}, "rate is a positive number; got 0"),
        (student, "pesf_kd", "learn from a teacher"),
        (
            student,
            {"name": "ccfp", "model": "resnet18_w16"},
            r"the student has \[.*\] of them, resnet18_w16 \[16, 32, 64, 128\]. Leave out model",
        ),
        (student, {"name": "ccfp", "model": "vit_d64"}, "Stages of vit_d64 are no sequences of layers"),
    ],
)
def test_partners_that_cannot_be_are_a_sentence(split, tmp_path, model, objective, sentence):
    with pytest.raises((ValueError, ParameterError, UnknownName), match=sentence):
        quick(split, tmp_path / "run", model(), objectives=["ce", objective])

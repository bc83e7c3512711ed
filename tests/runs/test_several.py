"""Several teachers as one: the mixture is the sum of their losses, weights by hand, experts, the frozen start, and what is refused."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import wakd_kit as wk
from wakd_kit.objectives import combine, kd
from wakd_kit.runs import several as taught
from wakd_kit.runs.network import predict
from wakd_kit.runs.several import Several, mixture, most_likely

from ..conftest import SMALL
from .stopped import stopped_and_resumed
from .test_teacher import Asked, same

FEW = {"steps": 3, "segment_length": 2, "batch_size": 6, "learning_rate": 1e-2, "batchnorm_batches": 1}
FEW |= {"device": "cpu", "progress": False}
KD = [{"name": "kd", "temperature": 2.0}]
TWO = {"of": ["start", "start"], "weigh": "uniform"}


def small(split, seed=0):
    return wk.build_model("resnet10t", split.classes, seed=seed, **SMALL)


def trained(split, folder, teacher=None, listed="ce", seed=0, **given):
    return wk.train(small(split, seed), split, teacher=teacher, objectives=listed, save_to=folder, **{**FEW, **given})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def north(split, folder):
    """An expert: what was trained on the first source alone."""
    return trained(split.only("north"), folder / "north", seed=1)


@pytest.fixture(scope="module")
def south(split, folder):
    return trained(split.only("south"), folder / "south", seed=2)


@pytest.fixture(scope="module")
def everything(split, folder):
    return trained(split, folder / "everything", seed=3)


# ---- the mixture


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_of_one_kl_to_the_mixture_is_that_of_the_weighted_sum(temperature):
    draw = torch.Generator().manual_seed(0)
    said = 5 * torch.randn(16, 3, 7, dtype=torch.float64, generator=draw)
    weights = torch.rand(16, 3, dtype=torch.float64, generator=draw)
    weights[0], weights[1, 0] = torch.tensor([0.0, 1.0, 0.0]), 0.0
    weights /= weights.sum(1, keepdim=True)
    student = torch.randn(16, 7, dtype=torch.float64, generator=draw).requires_grad_()

    def kl(teacher):  # of each example, T^2 KL
        log_p, log_s = F.log_softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
        return temperature**2 * (log_p.exp() * (log_p - log_s)).sum(1)

    apart = sum((weights[:, m] * kl(said[:, m])).mean() for m in range(3))
    (wanted,) = torch.autograd.grad(apart, student)
    (found,) = torch.autograd.grad(kd(student, mixture(said, weights, temperature), temperature=temperature), student)
    assert (found - wanted).abs().max() < 1e-12


def test_a_mixture_by_hand_and_who_has_all_the_weight_is_heard_as_it_is():
    said = torch.tensor([[[math.log(3.0), 0.0], [0.0, math.log(3.0)]]])  # 3/4, 1/4 and 1/4, 3/4
    mixed = mixture(said, torch.tensor([[0.5, 0.5]]), 1.0)
    torch.testing.assert_close(mixed.softmax(1), torch.tensor([[0.5, 0.5]]))
    mixed = mixture(said, torch.tensor([[0.75, 0.25]]), 1.0)
    torch.testing.assert_close(mixed.softmax(1), torch.tensor([[0.625, 0.375]]))
    assert torch.equal(mixture(said, torch.tensor([[0.0, 1.0]]), 3.0), said[:, 1])
    nearly = mixture(said.double(), torch.tensor([[1e-9, 1 - 1e-9]], dtype=torch.float64), 3.0)
    torch.testing.assert_close(nearly, said[:, 1].double(), atol=1e-6, rtol=0)  # nothing jumps there


# ---- weights


class Says(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.spec = {"name": "says"}


def weighed(weigh, logits, labels, domains=None, count=2):
    one = Several([Says() for _ in range(count)], ["a", "b", "c"][:count], weigh, temperature=1.0)
    return one.weights(torch.tensor(logits), torch.tensor(labels), domains).tolist()


#        a                b
SAID = [[[4.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 2.0, 0.0], [3.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]


@pytest.mark.parametrize(
    "weigh, labels, wanted",
    [
        ("surest", [1, 1, 1], [[1, 0], [0, 1], [1, 0]]),  # who comes first where both are as sure
        ("right", [1, 1, 0], [[0, 1], [1, 0], [1, 0]]),
        (
            "right",
            [[0.9, 0.1, 0], [0, 0, 1.0], [1, 0, 0]],
            [[1, 0], [1, 0], [1, 0]],
        ),  # of soft labels: what is expected
        ("uniform", [0, 0, 0], [[0.5, 0.5]] * 3),
        ([3, 1], [0, 0, 0], [[0.75, 0.25]] * 3),
    ],
)
def test_weights_of_examples_by_hand(weigh, labels, wanted):
    assert weighed(weigh, SAID, labels) == wanted


def test_an_example_s_domain_chooses_the_expert_and_a_generalist_where_there_is_none(split, north, south, everything):
    members = [run.model() for run in (north, south, everything)]
    one = Several(members, ["north", "south", "all"], "own_domain", temperature=1.0, split=split)
    assert split.sources == ("north", "east", "south")
    assert one.table.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    mixed_images = torch.tensor([[0.3, 0.0, 0.7]])  # of two domains
    assert one.weights(torch.zeros(1, 3, 4), None, mixed_images).tolist() == [
        [pytest.approx(0.3), pytest.approx(0.7), 0]
    ]
    twice = Several([members[0]] * 2, ["a", "b"], "own_domain", temperature=1.0, split=split.only("north"))
    assert twice.table.tolist() == [[0.5, 0.5]]


def test_weights_are_not_rounded_where_forwards_are_in_half_precision():
    one = Several([Says(), Says(), Says()], ["a", "b", "c"], "uniform", temperature=1.0)
    one.weigh, one.table = "own_domain", torch.full((2, 3), 1 / 3, dtype=torch.float64)
    said = [torch.randn(4, 5, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(3)]
    domains = torch.eye(2)[[0, 1, 0, 1]]
    plain = one.mixed(said, None, domains).logits
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(one.mixed(said, None, domains).logits, plain) and plain.dtype == torch.float32


def test_what_is_learned_makes_the_labels_most_likely():
    draw = torch.Generator().manual_seed(1)
    logits, labels = 2 * torch.randn(200, 3, 4, generator=draw), torch.randint(4, (200,), generator=draw)
    logits[:150, 0] += 3 * F.one_hot(labels, 4)[:150]  # the first knows most of them, the second some of the others
    logits[120:, 1] += 3 * F.one_hot(labels, 4)[120:]
    weights = most_likely(logits, labels)
    p = logits.double().softmax(2).gather(2, labels[:, None, None].expand(-1, 3, 1)).squeeze(2)
    slope = (p / (p @ weights)[:, None]).mean(
        0
    )  # of the log likelihood: 1 where there is weight, less where there is none
    assert weights[0] > weights[1] > 0.1 and weights.sum() == pytest.approx(1)
    assert all(s == pytest.approx(1, abs=1e-3) if w > 1e-3 else s < 1 for s, w in zip(slope, weights))


# ---- trainings


def test_one_expert_of_its_own_domain_is_that_teacher_bit_for_bit(split, north, folder):
    own = split.only("north")
    alone = trained(own, folder / "alone", north, KD)
    together = trained(own, folder / "together", {"of": [north], "weigh": "own_domain"}, KD)
    same(alone, together)
    assert together.settings["teacher"]["of"]["0"]["run"] == "north" and together.settings["teacher"]["run"] == "north"
    assert together.settings["seen"] == alone.settings["seen"]


@pytest.mark.parametrize("weigh", ["own_domain", "parc", "learned"])
def test_what_each_teacher_gives_is_kept_once_whoever_it_teaches_with(
    split, north, south, everything, tmp_path, monkeypatch, weigh
):
    monkeypatch.setenv("WAKD_CACHE", str(tmp_path / "cache"))
    teachers = [run.model() for run in (north, south, everything)]
    spec = {"of": teachers, "weigh": weigh}
    asked = Asked(teachers[0], monkeypatch)
    without = trained(split, tmp_path / "without", spec, KD, teacher_cache=0)
    same(without, trained(split, tmp_path / "first", spec, KD))
    assert asked.batches == 6
    same(without, trained(split, tmp_path / "second", spec, KD))
    trained(split, tmp_path / "other", {"of": teachers[:2] + ["start"], "weigh": "surest"}, KD)
    trained(split, tmp_path / "alone", teachers[0], KD)
    assert asked.batches == 6 and len([*(tmp_path / "cache" / "teachers").iterdir()]) == 4


def validated(model, split):
    return torch.cat([predict(model, examples.images) for examples in split.val.values()])


def test_the_frozen_start_is_a_teacher_and_only_its_better_half_is_heard(split, everything, tmp_path):
    start = small(split, seed=0)
    run = trained(split, tmp_path / "dist", {"of": [everything, "start"], "weigh": "right"}, KD)
    assert run.settings["teacher"]["of"].keys() == {"0", "1"}
    # by hand: what validation heard is the teacher's logits where it gives the label more, else those of the student at its start
    y = torch.cat([torch.from_numpy(e.labels) for e in split.val.values()])
    theirs, ours, last = (validated(model, split) for model in (everything.model(), start, run.model()))
    better = theirs.softmax(1).gather(1, y[:, None]) >= ours.softmax(1).gather(1, y[:, None])
    target = torch.where(better, theirs, ours)
    wanted = kd(last.double(), target.double(), temperature=2.0).item()
    assert run.table["val_kd_loss"].iloc[-1] == pytest.approx(wanted, rel=1e-5) and 0 < better.float().mean() < 1


def test_a_training_of_several_that_is_stopped_goes_on_bit_for_bit(split, north, everything, tmp_path, monkeypatch):
    taught_by = {"teacher": {"of": [north, everything, "start"], "weigh": "learned"}, "objectives": KD}
    stopped_and_resumed(
        split, tmp_path, monkeypatch, after=5, model=lambda: small(split), segment_length=2, **taught_by
    )


def test_a_recording_knows_its_teachers_and_how_they_were_weighed(split, north, everything, tmp_path):
    spec = {"of": [north, everything], "weigh": "surest"}
    run = trained(split, tmp_path / "one", spec, KD)
    assert trained(split, tmp_path / "one", spec, KD, resume=True).folder == run.folder
    places = {"of": [str(north.folder), str(everything.folder)], "weigh": "surest"}
    assert trained(split, tmp_path / "one", places, KD, resume=True).folder == run.folder
    for other in ({**spec, "weigh": "right"}, {"of": [everything, north], "weigh": "surest"}, everything):
        with pytest.raises(Exception, match="another teacher, of other"):
            trained(split, tmp_path / "one", other, KD, resume=True)


@pytest.mark.parametrize(
    "spec, listed, sentence",
    [
        ({"of": []}, KD, r"with at least one of them; got of=\[\]"),
        ({"off": ["start"]}, KD, "Unknown key of several teachers 'off'. Did you mean 'of'?"),
        ({"of": ["start"], "weigh": "surer"}, KD, "Unknown weigh 'surer'. Did you mean 'surest'?"),
        ({"of": ["start"], "weigh": [1, 1]}, KD, "a number >= 0 for each of the 1 teachers"),
        ({"of": ["start"], "weigh": [0]}, KD, "not all 0"),
        ({"of": ["start", "start"], "weigh": np.array([1.0, -1.0])}, KD, r"a number >= 0 .* got \[1.0, -1.0\]"),
        (
            {"of": ["start", "start"]},
            ["kd", "rkd"],
            "read features of the teacher, and several teachers have none in common",
        ),
        ({"of": ["start", "start"]}, ["fitnet"], "read features of the teacher"),
        ({"of": ["start", "start"]}, ["kdpp"], "read features of the teacher"),
        ({"of": ["start", "start"]}, [*KD, "kd"], "temperature of the objectives .* which is 2 and 5; give them one"),
        (
            {"of": ["start", "start"]},
            [{**KD[0], "schedule": {"of": "temperature", "first": 1.0}}],
            "which is one that changes",
        ),
        ({"of": [3]}, KD, 'Several teachers are runs, their folders, modules or "start"; got of=3'),
        ({"of": ["start", None]}, KD, 'modules or "start"; got of=None'),
        ({"of": ["start"], "weigh": "own_domain"}, KD, "nothing is known of start; give runs"),
    ],
)
def test_what_cannot_teach_together_is_a_sentence_before_the_first_batch(split, tmp_path, spec, listed, sentence):
    with pytest.raises(ValueError, match=sentence):
        trained(split, tmp_path / "none", spec, listed)
    assert not [*tmp_path.iterdir()]


def test_weights_may_be_an_array():
    assert taught.checked({**TWO, "weigh": np.array([3, 1])}) == {**TWO, "weigh": [3.0, 1.0]}


def test_experts_that_leave_a_domain_out_and_one_that_has_seen_too_much_are_named(
    split, domains, north, south, tmp_path
):
    with pytest.raises(ValueError, match="own_domain has no teacher for east: north, south were trained on others"):
        trained(split, tmp_path / "none", {"of": [north, south], "weigh": "own_domain"}, KD)
    other = wk.leave_one_out(domains, "north", seed=0)
    with pytest.raises(ValueError, match="The teacher north, or a model that it learned from, was trained on 'north'"):
        trained(other, tmp_path / "none", {"of": [south, north]}, KD)


def test_the_temperature_is_that_of_who_listens():
    assert taught.temperature_of(combine(["ce", *KD]), TWO) == 2.0
    assert taught.temperature_of(combine(["ce", "mse"]), TWO) == 1.0
    assert taught.temperature_of(combine([*KD, "kd"]), {**TWO, "weigh": "right"}) in (2.0, 5.0)  # nothing is mixed


@pytest.mark.parametrize(
    "given", [{"mix": {"name": "mixup"}}, {"second": {"name": "cutmix", "pick": "teacher"}}], ids=["mix", "second"]
)
def test_mixed_images_are_heard_with_their_soft_labels(split, north, everything, tmp_path, given):
    listed = [*KD, {"name": "ce", "on": "mixed"}] if "second" in given else KD
    run = trained(split, tmp_path / "one", {"of": [north, everything], "weigh": "right"}, listed, **given)
    assert np.isfinite(run.table["train_loss"]).all()
    with pytest.raises(ValueError, match="own_domain weighs by the domain of an image, and mixed images are of two"):
        trained(split, tmp_path / "none", {"of": [everything], "weigh": "own_domain"}, listed, **given)


def test_parc_weights_are_the_scores(split, north, everything, tmp_path, monkeypatch):
    scores = iter([60.0, -5.0, 20.0])
    monkeypatch.setattr(taught, "parc", lambda features, labels: next(scores))
    made = []
    init = Several.__init__
    monkeypatch.setattr(Several, "__init__", lambda self, *a, **k: (init(self, *a, **k), made.append(self))[0])
    trained(split, tmp_path / "one", {"of": [north, everything, "start"], "weigh": "parc"}, KD)
    np.testing.assert_allclose(made[0].table, [0.75, 0.0, 0.25])


def test_the_start_alone_is_a_teacher_whose_maps_are_read(split, tmp_path):
    listed = ["ce", {"name": "miro", "weight": 1.0}]
    began = small(split).requires_grad_(False).eval()
    same(
        trained(split, tmp_path / "start", {"of": ["start"]}, listed),
        trained(split, tmp_path / "copy", began, listed),
    )

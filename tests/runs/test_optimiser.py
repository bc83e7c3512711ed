"""The pull-back: Fish against its own loop, what is recorded of rounds, and what of settings cannot be."""

import copy

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.checks import make
from wakd_kit.data.augment import augment, views_from
from wakd_kit.data.batches import SourceBatches, seed_step
from wakd_kit.models.build import batchnorms
from wakd_kit.names import ParameterError
from wakd_kit.objectives import CRDMemory, combine
from wakd_kit.runs.optimiser import pulled_back, update
from wakd_kit.runs.settings import Settings

from .stopped import quick, stopped_and_resumed, student
from .victims import small_split

ROUNDS, SHARE, RATE = 20, 0.5, 1e-2


@pytest.fixture(scope="module")
def split():
    return small_split()


def fish(split, rounds: int) -> list[dict]:
    """The parameters after every round, as DomainBed has them: a clone goes through the domains, its optimiser carried on; the
    network goes a share of the way to the clone. Statistics of BatchNorm are the clone's."""
    outer = student().to(memory_format=torch.channels_last)
    inner = copy.deepcopy(outer).train()
    optimiser = torch.optim.Adam(inner.parameters(), lr=RATE, fused=True)
    data = SourceBatches(split, 8, "turns", 0, torch.device("cpu"))
    generator, views, found = torch.Generator(), views_from("photographs"), []
    for turn in range(rounds):
        with torch.no_grad():
            for clone, parameter in zip(inner.parameters(), outer.parameters()):
                clone.copy_(parameter)
        for domain in range(data.domains):
            step = turn * data.domains + domain + 1
            seed_step(generator, 0, step)
            images, labels, of_batch = data.batch(step)
            assert of_batch["domains"].argmax(1).unique().tolist() == [domain]
            loss = torch.nn.functional.cross_entropy(
                inner(augment(images, views, generator), maps=False).logits, labels
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            for clone, parameter in zip(inner.parameters(), outer.parameters()):
                parameter.copy_(parameter + SHARE * (clone - parameter))
        found.append({name: p.detach().clone() for name, p in outer.named_parameters()})
    return found


def test_turns_and_a_pull_back_are_fish_and_its_outer_parameters_are_recorded(split, tmp_path):
    rounds = fish(split, ROUNDS)
    with torch.random.fork_rng():
        run = quick(
            split, tmp_path / "run", steps=2 * ROUNDS, segment_length=4, learning_rate=RATE, sampling="turns", views="photographs",
            optimiser={"name": "adam", "pull_back": SHARE, "every": 2}, declare=[{"name": "ema", "decay": 0.9}],
        )  # fmt: skip
    assert run.settings["optimiser"] == {"name": "adam", "pull_back": SHARE, "every": 2}
    assert run.source_curves.iterates.tolist() == [4] * 10 and len(run.segments) == 10
    for k in range(10):
        mean, end = run.segments.read(k, "mean"), run.segments.read(k, "end")
        for name, last in rounds[2 * k + 1].items():
            assert torch.equal(end[name], last), "0.0 apart"
            torch.testing.assert_close(mean[name], (rounds[2 * k][name] + last) / 2)  # of outer parameters alone
    average = run.average(wk.averaging.ema(run, decay=0.9), exact=True, batchnorm="average")
    for name in rounds[0]:  # as if each step of a round had its outer parameters
        expected = rounds[0][name].double()
        for outer in rounds[1:]:
            expected = 0.81 * expected + 0.19 * outer[name].double()
        torch.testing.assert_close(average[name].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_share_is_of_the_way_and_all_of_it_is_plain_training(share):
    pulled, plain = (torch.nn.Linear(3, 2) for _ in range(2))
    pulled.load_state_dict(plain.state_dict())
    start = [p.detach().clone() for p in plain.parameters()]
    optimisers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (pulled, plain)]
    pulled_back(optimisers[0], share, 3)
    rows = torch.randn(3, 4, 3)
    for step, x in enumerate(rows):
        for model, optimiser in zip((pulled, plain), optimisers):
            optimiser.zero_grad()
            model(x).sum().backward()  # a gradient that no parameter changes
            optimiser.step()
        if step < 2 or share == 1:
            assert all(torch.equal(a, b) for a, b in zip(pulled.parameters(), plain.parameters()))
    for a, b, first in zip(pulled.parameters(), plain.parameters(), start):
        torch.testing.assert_close(a, first + share * (b - first))


def test_all_of_the_way_is_the_optimiser_by_its_name():
    said = make(Settings, {"optimiser": {"name": "sgd", "pull_back": 1, "every": 7}})
    assert said == make(Settings, {"optimiser": "sgd"})


@pytest.mark.parametrize("after", [3, 7])
def test_a_run_stopped_within_a_round_resumes_bit_equal(split, tmp_path, monkeypatch, after):
    pulled = {"name": "sgd", "pull_back": 0.3, "every": 2}
    declared = ["wakd", {"name": "ema", "decay": 0.9}]
    stopped_and_resumed(
        split, tmp_path, monkeypatch, after=after, sampling="turns", optimiser=pulled, declare=declared, ramps=True
    )


def test_a_moment_within_a_round_is_its_end(split, tmp_path):
    declared = [{"name": "wakd", "begin": 5}, {"name": "ema", "decay": 0.5, "begin": 7}]
    run = quick(
        split, tmp_path / "run", steps=12, optimiser={"name": "adam", "pull_back": 0.5, "every": 4}, declare=declared
    )
    assert run.segments.edges.tolist() == [4, 8, 12]
    assert np.flatnonzero(run.source_curves.ends == 8) == [1]
    exact = [run.average(getattr(wk.averaging, s["name"])(run, **{k: v for k, v in s.items() if k != "name"}), exact=True) for s in declared]  # fmt: skip
    end = run.segments.read(2, "end")
    assert all(
        torch.allclose(average[n], end[n])
        for average in exact
        for n in end
        if "running" not in n and end[n].is_floating_point()
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimiser": {"name": "adamm", "pull_back": 0.5}}, "Did you mean 'adam'"),
        ({"optimiser": {"pull_back": 0.5}}, "Stepping needs name"),
        ({"optimiser": {"name": "adam", "pull": 0.5}}, "Did you mean 'pull_back'"),
        ({"optimiser": {"name": "adam", "pull_back": 0}}, "pull_back is a positive number; got 0"),
        ({"optimiser": {"name": "adam", "pull_back": 1.5}}, "pull_back is a number from 0 to 1; got 1.5"),
        ({"optimiser": {"name": "adam", "pull_back": 0.5, "every": 0}}, "every is a whole number >= 1; got 0"),
        ({"optimiser": {"name": "adam", "pull_back": 0.5, "every": 3}}, "steps is a multiple of 3, such as 9; got 10"),
        ({"optimiser": {"name": "adam", "pull_back": 0.5, "every": 5}}, "segment_length is a multiple of 5, such as 5; got 4"),
        ({"optimiser": {"name": "adam", "pull_back": 0.5, "every": 2}, "edges": [3]}, "edges is a multiple of 2, such as 2; got 3"),
        ({"optimiser": {"name": "adam", "every": 5}}, "every decides nothing without pull_back; say pull_back as well, or leave out every=5"),
        ({"sampling": "turn"}, "Did you mean 'turns'"),
    ],
)  # fmt: skip
def test_what_cannot_be_pulled_back_is_a_sentence(change, sentence):
    with pytest.raises(ParameterError, match=sentence):
        make(Settings, {"steps": 10, "segment_length": 4, **change})


@pytest.mark.parametrize("name", ["moments", "coral", "vrex", "group_dro"])
def test_penalties_between_domains_are_refused_where_a_batch_has_one(split, tmp_path, name):
    with pytest.raises(ValueError, match="compare domains within a batch, and with sampling='turns' each is of one"):
        quick(split, tmp_path / "run", steps=2, sampling="turns", objectives=["ce", name])
    assert not list(tmp_path.iterdir())


RHO = 0.05


def sam(split, steps: int) -> list[dict]:
    """The state after every step, as davda54/sam has it: to the top, a second gradient, back, and a step."""
    network = student().to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    data = SourceBatches(split, 8, "pooled", 0, torch.device("cpu"))
    generator, views, found = torch.Generator(), views_from("photographs"), []
    for step in range(1, steps + 1):
        seed_step(generator, 0, step)
        images, labels, _ = data.batch(step)
        x = augment(images, views, generator)
        torch.nn.functional.cross_entropy(network(x, maps=False).logits, labels).backward()
        statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
        length = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
        old = [p.detach().clone() for p in network.parameters()]
        with torch.no_grad():
            for p in network.parameters():
                p += p.grad * (RHO / (length + 1e-12))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x, maps=False).logits, labels).backward()
        with torch.no_grad():
            for p, was in zip(network.parameters(), old):
                p.copy_(was)
            for name, buffer in network.named_buffers():
                buffer.copy_(statistics[name])
        optimiser.step()
        optimiser.zero_grad()
        found.append({name: t.detach().clone() for name, t in network.state_dict().items()})
    return found


def test_rho_is_sharpness_aware_minimisation(split, tmp_path):
    steps = sam(split, 6)
    given = {"steps": 6, "segment_length": 2, "learning_rate": RATE, "views": "photographs", "declare": []}
    with torch.random.fork_rng():
        run = quick(split, tmp_path / "run", optimiser={"name": "adam", "rho": RHO}, **given)
        plain = quick(split, tmp_path / "plain", optimiser={"name": "adam", "rho": 0}, **given)
    assert run.settings["optimiser"] == {"name": "adam", "rho": RHO} and plain.settings["optimiser"] == "adam"
    for k in range(3):
        end = run.segments.read(k, "end")
        for name, last in steps[2 * k + 1].items():
            torch.testing.assert_close(end[name], last, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(end[name], t) for name, t in plain.segments.read(2, "end").items())


def test_the_second_pass_moves_no_memory_of_objectives(split, tmp_path, monkeypatch):
    taught = quick(split, tmp_path / "teacher", steps=4)
    asked = []
    follow = CRDMemory._follow
    monkeypatch.setattr(
        CRDMemory, "_follow", lambda self, *given: (asked.append(self.training), follow(self, *given))[1]
    )
    quick(
        split, tmp_path / "run", steps=4, teacher=taught, objectives=[{"name": "ce"}, {"name": "crd_memory", "negatives": 8}],
        optimiser={"name": "sgd", "rho": RHO},
    )  # fmt: skip
    assert len(asked) >= 4 and all(asked), "in training mode alone it follows, once a step"


def test_a_stopped_sharpness_aware_run_goes_on_bit_for_bit(split, tmp_path, monkeypatch):
    stopped_and_resumed(split, tmp_path, monkeypatch, after=5, optimiser={"name": "adam", "rho": RHO})


def test_with_a_pull_back_both_are_recorded():
    given = {"name": "sgd", "pull_back": 0.5, "every": 5, "rho": 0.1}
    assert make(Settings, {"optimiser": given, "steps": 20, "segment_length": 10}).optimiser == given
    with pytest.raises(ParameterError, match="rho"):
        make(Settings, {"optimiser": {"name": "sgd", "rho": -1}})


def test_the_second_pass_leaves_nothing_behind_also_where_it_fails():
    network = student().train()
    combined = combine([{"name": "ce"}, {"name": "mutual"}])
    combined.extended(network, None)
    x, labels = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 0, 1])
    combined.prepare(network(x), None, steps=2, images=x)
    optimiser = torch.optim.SGD([*network.parameters(), *combined.parameters()], lr=0.0)
    partners = batchnorms(combined)
    passes = []

    def taught():
        if passes:
            assert all(layer.training and not layer.track_running_stats for layer in partners)
            raise KeyboardInterrupt
        passes.append({name: t.clone() for name, t in (*network.state_dict().items(), *combined.state_dict().items())})
        found = combined(network(x), None, labels, step=1, images=x)
        passes[0] |= {name: t.clone() for name, t in (*network.state_dict().items(), *combined.state_dict().items())}
        return found

    with pytest.raises(KeyboardInterrupt):
        update(optimiser, network, combined, taught, RHO)
    after = dict((*network.state_dict().items(), *combined.state_dict().items()))
    assert partners and all(torch.equal(t, after[name]) for name, t in passes[0].items())
    assert combined.training and all(layer.track_running_stats for layer in (*partners, *batchnorms(network)))

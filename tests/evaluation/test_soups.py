"""Averages across runs against averages taken by hand, and the barrier that explains a rejection."""

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.averaging import NoWindow
from wakd_kit.data.augment import calibration_views, views_from
from wakd_kit.evaluation.merging import merge
from wakd_kit.runs.store import RunProblem

from ..conftest import SMALL, one_image


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)

    def domain(shift):
        labels = np.arange(90) % 3
        images = np.clip(60 * labels[:, None, None, None] + shift + rng.normal(0, 40, (90, 16, 16, 3)), 0, 255)
        return images.astype(np.uint8), labels

    domains = wk.domains_from_arrays({"a": domain(0), "b": domain(30), "c": domain(60)}, ("x", "y", "z"))
    return wk.leave_one_out(domains, "c", 0)


def record(split, folder, start, seed, **settings):
    model = wk.build_model("resnet10t", 3, **SMALL, seed=start)
    settings = {"steps": 24, "learning_rate": 1e-3, **settings}
    return wk.train(
        model, split, segment_length=8, batch_size=16, declare=[], seed=seed, batchnorm_batches=3,
        save_to=folder, progress=False, device="cpu", **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alike(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    return [record(split, folder / f"s{seed}", start=0, seed=seed) for seed in (1, 2, 3)]


def test_the_soup_is_the_mean_of_its_members(alike):
    soup = wk.Soup(alike, coefficients=[wk.averaging.last(r.source_curves) for r in alike])
    state = soup.average([0.5, 0.3, 0.2])
    for name, tensor in state.items():
        if tensor.is_floating_point():
            ends = [r.segments.read(2, "end")[name].double() for r in alike]
            torch.testing.assert_close(
                tensor.double(), 0.5 * ends[0] + 0.3 * ends[1] + 0.2 * ends[2], rtol=1e-6, atol=1e-7
            )


def test_a_member_alone_scores_as_its_own_run_does(alike, split):
    soup = wk.Soup(alike)
    for k, run in enumerate(alike):
        best = wk.averaging.best_val(run.source_curves)
        table = wk.evaluate(run, {"best": best}, split)
        own = table[table["role"] == "source"]["accuracy"].mean()
        assert soup.val_accuracy[k] == pytest.approx(own, abs=one_image(18))
        assert soup.score(np.eye(3)[k]) == pytest.approx(own, abs=one_image(18))


def test_searches_across_runs_never_lose_on_source_validation(alike):
    soup = wk.Soup(alike)
    greedy = wk.averaging.greedy_soup(val_accuracy=soup.val_accuracy, score=soup.score)
    restricted = wk.averaging.diwa(soup.val_accuracy, restrict=True, score=soup.score)
    assert soup.score(greedy) >= max(soup.val_accuracy) - 1e-12
    assert soup.score(restricted) >= max(soup.val_accuracy) - 1e-12


def test_an_ensemble_scores_mean_probabilities(alike, split):
    soup = wk.Soup(alike)
    table = soup.evaluate({"uniform": wk.averaging.uniform_soup(soup.val_accuracy), "ensemble": "probs"})
    examples = split.target_for_testing_only
    probs = []
    for run, state in zip(alike, soup.states):
        model = run.blank_model()
        model.load_state_dict(state)
        probs.append(wk.evaluation.predict(model, examples.images).softmax(1))
    expected = (torch.stack(probs).mean(0).argmax(1).numpy() == examples.labels).mean()
    found = table[(table["strategy"] == "ensemble") & (table["role"] == "target")]["accuracy"].item()
    assert found == pytest.approx(expected, abs=one_image(len(examples)))
    assert set(table["strategy"]) == {"uniform", "ensemble"} and len(table) == 6


def cancelling(state, unit):
    """The same parameters but for the end: one unit of the last stage is always 1 and cancels the classifier's bias."""
    state = {name: tensor.clone() for name, tensor in state.items()}
    for name, tensor in state.items():
        if ".layer2." in name and tensor.ndim == 1 and name.endswith(("weight", "bias")):
            tensor.zero_()
    state["model.layer2.0.bn2.bias"][unit] = 1
    state["model.fc.weight"].zero_()[0, unit] = 10
    state["model.fc.bias"].copy_(torch.tensor([-10.0, 0, 0]))
    return state


def test_runs_that_compute_the_same_in_other_units_are_rejected_with_the_losses(alike):
    """Both have no opinion, log 3; half of each has a bias of -5 left: log(2 + e^-5) and a third of 5."""
    soup = wk.Soup(alike[:2])
    start = soup.states[0]
    soup.states = [cancelling(start, 0), cancelling(start, 1)]
    barrier = np.log(2 + np.exp(-5)) + 5 / 3 - np.log(3)
    assert soup.check(allowed=2) == pytest.approx(barrier, rel=1e-4)
    with pytest.raises(NoWindow, match=r"do not share a start: midpoint loss .* vs"):
        soup.check()
    soup = wk.Soup(alike[:2])
    soup.states = [cancelling(start, 0), cancelling(start, 0)]
    assert soup.check() == pytest.approx(0, abs=1e-5)


def test_soups_refuse_what_cannot_be_averaged(split, alike, tmp_path):
    wide = wk.build_model("resnet10t", 3, channels=(8, 8, 8, 8), stem_width=4, seed=0)
    other = wk.train(wide, split, steps=4, segment_length=2, batch_size=8, save_to=tmp_path / "wide", progress=False)
    with pytest.raises(RunProblem, match="differ in their student"):
        wk.Soup([alike[0], other])
    with pytest.raises(RunProblem, match="at least two runs"):
        wk.Soup(alike[:1])
    with pytest.raises(ValueError, match="needs as many coefficients"):
        wk.Soup(alike).average([1.0])


def test_a_member_that_diverged_costs_its_own_rows_and_no_others(alike):
    soup = wk.Soup(alike)
    soup.states = [*soup.states[:2], {n: t * np.nan if t.is_floating_point() else t for n, t in soup.states[2].items()}]
    choices = {"two": [0.5, 0.5, 0.0], "all": [0.4, 0.4, 0.2], "probs": "probs", "mean": "mean", "score": "score"}
    table = soup.evaluate({**choices, "none": NoWindow("found none")}).set_index("strategy")
    assert table.loc["two", "accuracy"].notna().all() and table.drop("two")["accuracy"].isna().all()
    for label in ("probs", "mean", "score"):
        assert set(table.loc[label, "note"]) == {"s3 diverged: it holds or predicts what is no number. Leave it out."}
    assert set(table.loc["none", "note"]) == {"found none"}


WRONG = [
    ("tis", "Did you mean 'ties'"),
    ({"name": "ties", "densiti": 0.2}, "Did you mean 'density'"),
    ({"name": "ties", "density": 5}, "density is the share of entries that stay"),
    ([0.5, 0.5], "as many coefficients"),
    ([np.nan, 0.5, 0.5], "as many coefficients"),
]


@pytest.mark.parametrize("wrong, words", WRONG)
def test_what_cannot_be_scored_is_refused_before_the_first_is(alike, wrong, words, monkeypatch):
    soup = wk.Soup(alike)
    monkeypatch.setattr(soup, "_logits", None)  # nothing is scored
    with pytest.raises((KeyError, ValueError), match=words):
        soup.evaluate({"fine": [0.5, 0.5, 0.0], "wrong": wrong})


@pytest.fixture(scope="module")
def experts(split, tmp_path_factory):
    """One for each source of the split, from one start."""
    folder = tmp_path_factory.mktemp("experts")
    return [record(split.only(domain), folder / domain, start=0, seed=0) for domain in split.sources]


def test_experts_of_single_sources_are_merged_and_judged_on_all_of_them(experts, split):
    soup = wk.Soup(experts, split=split)
    assert soup.split.sources == ("a", "b") and soup.check(allowed=5) < 5
    table = soup.evaluate({"mean": "mean", "uniform": [0.5, 0.5], "TIES": {"name": "ties", "density": 0.3}})
    assert all(sorted(rows["domain"]) == ["a", "b", "c"] for _, rows in table.groupby("strategy")) and len(table) == 9
    accuracy = table.pivot(index="strategy", columns="domain", values="accuracy")
    assert (accuracy.loc["mean"] == accuracy.loc["uniform"]).all()
    # by hand: the rule on parameters, statistics of the views that the first run draws, of both domains
    model = experts[0].blank_model()
    names = [n for n, _ in model.named_parameters()]
    means = [
        r.average(wk.averaging.best_val(r.source_curves), split=split.only(*r.source_curves.per_domain["val_loss"]))
        for r in experts
    ]
    merged = merge(
        {n: experts[0].segments.initial[n] for n in names}, [{n: s[n] for n in names} for s in means], "ties"
    )
    model.load_state_dict(means[0] | merged)
    wk.models.recalibrate(
        model, calibration_views(split, views_from(experts[0].settings["views"]), 3, 16, seed=0, device="cpu")
    )
    for name, tensor in soup.merge("ties").items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-5)
    soup.merge({"name": "ties"})["model.fc.weight"].zero_()
    assert soup.merge("ties")["model.fc.weight"].any(), "what is handed out is a copy"


def test_experts_of_all_images_of_their_sources_meet_in_a_split_of_all_images(split, tmp_path):
    parts = [split.only(domain).whole() for domain in split.sources]
    soup = wk.Soup([record(part, tmp_path / part.sources[0], start=0, seed=0, steps=2) for part in parts])
    assert soup.split.recipe == split.whole().recipe and len(soup.val_accuracy) == 2


def test_a_member_alone_keeps_the_statistics_of_its_own_sources(experts, split):
    soup = wk.Soup(experts, split=split)
    table = soup.evaluate({"b alone": [0.0, 1.0]})
    best = wk.averaging.best_val(experts[1].source_curves)
    own = wk.evaluate(experts[1], {"b alone": best}, split.only("b"))
    columns = ["domain", "accuracy", "nll"]
    both = table[columns].merge(own[columns], on="domain", suffixes=("", "_own"))
    assert sorted(both["domain"]) == ["b", "c"]
    assert both["nll"].to_numpy() == pytest.approx(both["nll_own"].to_numpy(), abs=1e-4)


def test_runs_of_other_starts_or_splits_are_not_merged(experts, alike, split, tmp_path):
    other = record(split.only("b"), tmp_path / "other", start=1, seed=0)
    soup = wk.Soup([experts[0], other], split=split)
    with pytest.raises(
        RunProblem,
        match=r"other and a began with different parameters.*loss barrier between these runs is [\d.e-]+ nats",
    ):
        soup.merge("mean")
    elsewhere = record(wk.leave_one_out(split.domains, "b", 0), tmp_path / "elsewhere", start=0, seed=0, steps=8)
    with pytest.raises(RunProblem, match="differ in their split"):
        wk.Soup([experts[0], elsewhere])
    whole = record(split.only("b").whole(), tmp_path / "whole", start=0, seed=0, steps=8)
    with pytest.raises(RunProblem, match=r"whole and a differ in their split \(whole True and False\)"):
        wk.Soup([experts[0], whole])
    with pytest.raises(RunProblem, match=r"sources"):
        wk.Soup(experts, split=split.only("a"))

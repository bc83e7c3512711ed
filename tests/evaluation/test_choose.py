"""The torch side of learned coefficients: halves that do not leak, and a gradient that is one."""

import warnings
import zlib

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.averaging import NoWindow
from wakd_kit.evaluation import choose as fitting
from wakd_kit.evaluation.choose import halves, source_fit
from wakd_kit.runs.network import Network
from wakd_kit.runs.run import _recorded

from ..conftest import SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rng = np.random.default_rng(0)

    def domain(shift):
        labels = np.arange(90) % 3
        images = np.clip(60 * labels[:, None, None, None] + shift + rng.normal(0, 40, (90, 16, 16, 3)), 0, 255)
        return images.astype(np.uint8), labels

    domains = wk.domains_from_arrays({"a": domain(0), "b": domain(30), "c": domain(60)}, ("x", "y", "z"))
    split = wk.leave_one_out(domains, "c", 0)
    torch.manual_seed(0)
    model = wk.build_model("resnet10t", 3, **SMALL)
    folder = tmp_path_factory.mktemp("fit") / "run"
    # frozen statistics: the loss is then a function of the parameters alone, and finite differences are its gradient
    return wk.train(
        model, split, steps=24, segment_length=4, batch_size=8, learning_rate=3e-3, batchnorm="frozen", declare=[],
        save_to=folder, progress=False, device="cpu",
    )  # fmt: skip


def test_halves_are_disjoint_by_original_and_stratified():
    labels = np.repeat(np.arange(3), 20)
    examples = wk.data.domains.Examples(np.zeros((60, 8, 8, 3), np.uint8), labels, np.arange(60) // 2)
    first, second = halves(examples, seed=1)
    assert not set(first.originals) & set(second.originals) and len(first) + len(second) == 60
    assert all(abs((first.labels == k).sum() - 10) <= 2 for k in range(3))


def test_a_fit_without_images_to_stop_on_is_no_window(tmp_path):
    """One validation image of each of two classes: by its own coin every second domain has both in one half."""
    rng = np.random.default_rng(0)
    make = lambda: (rng.integers(0, 255, (4, 8, 8, 3)).astype(np.uint8), np.arange(4) % 2)  # noqa: E731
    split = wk.leave_one_out(wk.domains_from_arrays({name: make() for name in "abcdef"}, ("x", "y")), "f", 0)
    sizes = {tuple(map(len, halves(e, seed=zlib.crc32(d.encode())))) for d, e in split.val.items()}
    assert (1, 1) in sizes and len(sizes) > 1, "or this test shows nothing"
    few = wk.train(
        wk.build_model("resnet10t", 2, **SMALL, seed=0), split, steps=2, segment_length=1, batch_size=5, batchnorm="frozen",
        declare=[], save_to=tmp_path / "few", progress=False, device="cpu",
    )  # fmt: skip
    choices = wk.choose(few, ["last", "learned"])
    assert isinstance(choices["last"], wk.averaging.Coefficients) and isinstance(choices["learned"], NoWindow)
    assert "the 2 validation images of " in str(choices["learned"]) and "Hold out more" in str(choices["learned"])


def test_the_gradient_matches_finite_differences_on_the_simplex(run):
    loss_and_gradient, _ = source_fit(run)
    start = wk.averaging.uniform(run.source_curves)
    _, gradient = loss_and_gradient(start)
    step = 2e-2
    for i, j in ((0, 5), (1, 3), (4, 2)):
        moves = []
        for sign in (1, -1):
            values = np.asarray(start).copy()
            values[i] += sign * step
            values[j] -= sign * step
            moves.append(loss_and_gradient(values)[0])
        assert (moves[0] - moves[1]) / (2 * step) == pytest.approx(gradient[i] - gradient[j], rel=0.1, abs=2e-4)


def test_learned_coefficients_are_no_worse_than_uniform_on_the_held_out_half(run):
    loss_and_gradient, held_out_loss = source_fit(run)
    chosen = wk.averaging.learned(
        run.source_curves, loss_and_gradient=loss_and_gradient, held_out_loss=held_out_loss, rounds=10
    )
    assert held_out_loss(chosen) <= held_out_loss(wk.averaging.uniform(run.source_curves)) + 1e-9
    assert abs(chosen.sum() - 1) < 1e-12 and chosen.min() >= 0


def test_choose_supplies_what_each_strategy_asks_for(run):
    wanted = ["last", "wakd", {"name": "sma", "start": 0.2}, "greedy_soup", {"name": "learned", "rounds": 3}]
    choices = wk.choose(run, wanted)
    score = wk.source_score(run)
    assert list(choices) == ["last", "wakd", "sma", "greedy_soup", "learned"]
    assert np.array_equal(choices["sma"], wk.averaging.sma(run.source_curves, start=0.2, score=score))
    assert choices["learned"].strategy == "learned"


def test_one_average_under_another_name_is_not_evaluated_again(run, monkeypatch):
    curves, taken = run.source_curves, []
    take = Network.take
    monkeypatch.setattr(Network, "take", lambda self, c: (taken.append(c), take(self, c))[1])
    score = wk.source_score(run)
    same = [wk.averaging.uniform(curves), wk.averaging.wakd(curves, begin=0), np.asarray(wk.averaging.uniform(curves))]
    assert len({score(one) for one in same}) == 1 and len(taken) == 1
    moving = [wk.averaging.ema(curves, decay=0.9, warmup=warmup) for warmup in (False, True)]
    assert len({wk.averaging.average_of(one) for one in (*same, *moving, wk.averaging.last(curves))}) == 4


def test_choose_loads_no_images_for_strategies_that_read_curves(run):
    alone = wk.load_run(run.folder)  # trained on arrays in memory: it could not load them again
    assert np.array_equal(wk.choose(alone, ["wakd"])["wakd"], wk.averaging.wakd(run.source_curves))
    with pytest.raises(
        ValueError, match=r"trained on arrays in memory.*: take it as load_run\('.*', split=\.\.\.\) with the"
    ):
        wk.choose(alone, [{"name": "sma", "start": 0.2}])
    again = wk.load_run(run.folder, split=run.split)
    assert list(wk.choose(again, [{"name": "sma", "start": 0.2}])) == ["sma"]


def test_the_table_of_choices_says_window_count_reason_and_cost(run):
    wanted = [
        "last",
        {"name": "wakd", "begin": 8},
        {"name": "swad", "n_converge": 6},
        {"name": "sma", "start": 0},
        "best_val",
        "wise_ft",
    ]
    wanted += [{"name": "swad", "label": "by KL", "loss": "val_kd_loss"}, {"name": "lawa", "k": 3}, "learned"]
    choices = wk.choose(run, wanted)
    table = wk.choices_table(run, choices).set_index("strategy")
    assert list(table.index) == list(choices)
    assert table.loc["wakd", ["begin", "end", "iterates", "of"]].tolist() == [8, 24, 16, "mean"]
    assert table.loc["last", ["begin", "end", "iterates", "of"]].tolist() == [23, 24, 1, "end"]
    assert table.loc["lawa", ["begin", "end", "iterates", "of"]].tolist() == [15, 24, 3, "end"]
    assert table.loc["wise_ft", "initial"] == 0.25
    assert (
        table.loc["wakd", "chosen_by"] == "a schedule, which reads no validation"
        and table.loc["wakd", "evaluations"] == 0
    )
    assert table.loc["best_val", "chosen_by"] == "val_accuracy on source validation"
    assert table.loc["by KL", "chosen_by"] == "val_kd_loss on source validation"
    assert "no 'val_kd_loss' curve" in table.loc["by KL", "reason"] and table.loc["by KL", "coefficients"] is None
    assert table.loc["sma", "chosen_by"] == "averages scored on source validation"
    assert table.loc["sma", "evaluations"] == 6, "one per segment end"
    assert table.loc["learned", "evaluations"] > 1
    assert np.array_equal(table.loc["wakd", "coefficients"], choices["wakd"])


def test_what_decided_is_kept_with_the_run(run):
    choices = wk.choose(run, ["last", {"name": "sma", "start": 4}])
    choices["none"] = NoWindow("found no window")
    choices["none"].chosen_by, choices["none"].evaluations = "averages scored on source validation", 3
    wk.evaluate(run, choices)
    kept = wk.load_run(run.folder).choices
    assert (kept["sma"].chosen_by, kept["sma"].evaluations) == ("averages scored on source validation", 5)
    assert isinstance(kept["none"], NoWindow) and str(kept["none"]) == "found no window"
    assert (kept["none"].chosen_by, kept["none"].evaluations) == ("averages scored on source validation", 3)
    older = _recorded({"no_window": "too short"})
    assert (str(older), older.chosen_by, older.evaluations) == ("too short", "", 0)


@pytest.fixture(scope="module")
def merged(run, tmp_path_factory):
    """The same training, of 24 recorded segments, of which at most 18 are stored."""
    model = wk.build_model("resnet10t", 3, **SMALL, seed=0)
    return wk.train(
        model, run.split, steps=24, segment_length=1, batch_size=8, learning_rate=3e-3, batchnorm="frozen", declare=[],
        most_stored=18, save_to=tmp_path_factory.mktemp("merged") / "run", progress=False, device="cpu",
    )  # fmt: skip


def test_the_table_says_how_much_of_an_average_merged_storage_displaces(merged):
    edges = merged.segments.edges
    inside = next(int(edge) - 1 for edge, count in zip(edges, merged.segments.iterates) if count == 2)
    choices = wk.choose(merged, ["uniform", {"name": "wakd", "label": "at an edge", "begin": int(edges[3])}])
    choices |= wk.choose(merged, [{"name": "wakd", "label": "inside a segment", "begin": inside}])
    table = wk.choices_table(merged, choices).set_index("strategy")
    assert table["picked"].str.contains("on the nearest of 18 stored segments").tolist() == [False, False, True]
    table = table["displaced"]
    # of the iterates after the begin, one of a stored pair: half of its coefficient goes to the other
    assert table.tolist() == [0, 0, pytest.approx(0.5 / (24 - inside))]


def test_searches_return_exactly_the_averages_that_they_evaluated(merged):
    assert len(merged.segments) == 18 < len(merged.table) == 24, "or this test shows nothing"
    wanted = [{"name": "sma", "start": 2}, "iidmax", "greedy_soup", {"name": "learned", "rounds": 2}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # run.average warns where coefficients have to move
        choices = wk.choose(merged, wanted)
    score = wk.source_score(merged)
    for label, choice in choices.items():
        assert len(choice) == 24 and abs(choice.sum() - 1) < 1e-12
        assert merged.stored_coefficients(choice)[1] < 1e-12, label
        merged.average(choice, exact=True)
        assert "of 18 stored segments" in choice.note
    assert choices["iidmax"].evaluations == 18 and choices["greedy_soup"].evaluations == 17
    ends = merged.table["step"][np.flatnonzero(choices["greedy_soup"])]
    assert choices["greedy_soup"].note.endswith(f"iterates {', '.join(map(str, ends))})")
    assert score(choices["sma"]) >= score(wk.averaging.wakd(merged.source_curves, begin=2)) - 1e-12
    assert "stored segments" not in wk.choose(merged, ["wakd"])["wakd"].note


def test_a_search_may_go_beyond_the_iterates_of_merged_segments(merged, monkeypatch):
    strategies = wk.averaging.strategies
    monkeypatch.setattr(strategies, "_entries", dict(strategies._entries))

    @strategies.register
    def searched(curves, *, score):
        return max((wk.averaging.bema(curves, lag=lag) for lag in (5, 10)), key=score)

    choice = wk.choose(merged, ["searched"])["searched"]
    assert len(choice) == len(choice.ends) == 24 and choice.evaluations == 2
    assert merged._stored(choice)[2] < 1e-12
    merged.average(choice, exact=True)


def test_a_fit_goes_over_source_validation_in_batches(run, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    make = lambda: (rng.integers(0, 255, (600, 8, 8, 3)).astype(np.uint8), np.arange(600) % 3)  # noqa: E731
    domains = wk.domains_from_arrays({"a": make(), "b": make(), "c": make()}, ("x", "y", "z"))
    split = wk.leave_one_out(domains, "c", 0, validation=0.5)
    model = wk.build_model("resnet10t", 3, **SMALL, seed=0)
    large = wk.train(
        model, split, steps=4, segment_length=2, batch_size=8, batchnorm="frozen", declare=[], save_to=tmp_path / "run",
        progress=False, device="cpu",
    )  # fmt: skip
    sizes, to_float = [], fitting.to_float
    monkeypatch.setattr(fitting, "to_float", lambda images: sizes.append(len(images)) or to_float(images))
    loss_and_gradient, held_out_loss = source_fit(large)
    uniform = wk.averaging.uniform(large.source_curves)
    loss, gradient = loss_and_gradient(uniform)
    parts = [halves(examples, seed=zlib.crc32(d.encode()))[0] for d, examples in split.val.items()]
    assert max(sizes) <= 128 and sum(sizes) == sum(map(len, parts))
    network = large.model(uniform)
    losses = []
    for part in parts:
        logits = wk.evaluation.predict(network, part.images)
        losses.append(torch.nn.functional.cross_entropy(logits, torch.as_tensor(part.labels)).item())
    assert loss == pytest.approx(np.mean(losses), rel=1e-5) and np.isfinite(gradient).all()
    assert np.isfinite(held_out_loss(uniform))

"""What averages predicted is kept with the run, and belongs to the coefficients it was predicted with."""

import json

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.averaging import NoWindow
from wakd_kit.evaluation.predictions import kept, predicted
from wakd_kit.evaluation.scores import predict
from wakd_kit.runs.store import RunProblem

from ..conftest import SMALL


@pytest.fixture
def evaluated(copied):
    curves = copied.source_curves
    wk.evaluate(
        copied, {"last": averaging.last(curves), "all": averaging.uniform(curves), "none": NoWindow("too short")}
    )
    return copied


def test_predicted_is_the_likeliest_class_and_its_probability():
    probs = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    found = predicted(torch.tensor(np.log(probs) - 3).float(), np.array([0, 1]), "source")
    assert found.classes.tolist() == [0, 2] and found.confidence.tolist() == pytest.approx([0.7, 0.5])
    assert found.correct.tolist() == [True, False] and found.role == "source"


def test_what_evaluate_predicted_is_what_the_averaged_model_predicts(evaluated, split):
    found = kept(evaluated)
    assert found.keys() == {"last", "all"}, "nothing is predicted without a window"
    for label, by_domain in found.items():
        assert list(by_domain) == [*split.sources, "west"]
        assert [p.role for p in by_domain.values()] == ["source"] * 3 + ["target"]
        model = evaluated.model(evaluated.choices[label])
        for domain, examples in {**split.val, "west": split.target_for_testing_only}.items():
            logits = predict(model, examples.images)
            assert (by_domain[domain].labels == examples.labels).all()
            first, second = logits.topk(2).values.T
            told = (first - second > 1e-4).numpy()  # where two classes tie, the last bit decides
            assert (by_domain[domain].classes == logits.argmax(1).numpy())[told].all() and told.any()
            np.testing.assert_allclose(by_domain[domain].confidence, logits.softmax(1).max(1).values, rtol=1e-5)


def test_accuracies_and_predictions_are_of_one_evaluation(evaluated):
    found = kept(evaluated)
    for row in evaluated.scores.dropna(subset="accuracy").itertuples():
        p = found[row.strategy][row.domain]
        assert (p.role, len(p.labels)) == (row.role, row.n) and p.correct.mean() == pytest.approx(row.accuracy)


def test_the_newest_prediction_of_a_label_stands_and_others_stay(evaluated):
    before = kept(evaluated)
    wk.evaluate(evaluated, {"last": averaging.window(evaluated.source_curves, begin=12)})
    after = kept(evaluated)
    assert not np.allclose(before["last"]["west"].confidence, after["last"]["west"].confidence)
    np.testing.assert_array_equal(before["all"]["west"].confidence, after["all"]["west"].confidence)


@pytest.mark.parametrize("other", ["window", "end", "initial", "recalibrated", "note"])
def test_predictions_of_other_coefficients_are_not_those_of_this_choice(evaluated, other):
    curves, uniform = evaluated.source_curves, averaging.uniform(evaluated.source_curves)
    changed = {
        "window": averaging.window(curves, begin=12),
        "end": averaging.Coefficients(np.asarray(uniform), of="end"),
        "initial": averaging.Coefficients(np.asarray(uniform) / 2, initial=0.5),
        "recalibrated": averaging.Coefficients(uniform, **{**uniform.notes, "recalibrated": True}),
        "note": averaging.Coefficients(uniform, **{**uniform.notes, "note": "an ema that was declared"}),
    }[other]
    evaluated.remember_choices({"all": changed})
    assert kept(evaluated).keys() == {"last"}


def test_predictions_that_an_older_version_kept_are_read(evaluated):
    file = evaluated.folder / "predictions.npz"
    with np.load(file) as arrays:
        arrays = dict(arrays)
    curves = evaluated.source_curves
    for label, choice in {"last": averaging.last(curves), "all": averaging.uniform(curves)}.items():
        arrays[f"of/{label}"] = np.array([choice.of == "end", choice.initial, *choice])
    np.savez_compressed(file, **arrays)
    assert kept(evaluated).keys() == {"last", "all"}
    evaluated.remember_choices({"all": averaging.window(curves, begin=12)})
    assert kept(evaluated).keys() == {"last"}


def test_nothing_is_kept_of_another_batchnorm_policy_or_of_a_table_alone(copied):
    chosen = {"all": averaging.uniform(copied.source_curves)}
    wk.evaluate(copied, chosen, batchnorm="average")
    assert not (copied.folder / "predictions.npz").exists() and kept(copied) == {}


def test_domains_and_labels_may_be_called_anything(domains, tmp_path):
    """A slash in a name would look like a level of the file."""
    odd = wk.domains_from_arrays(
        {name: (domains[d].images, domains[d].labels) for name, d in zip(("a/b", "a", "of"), domains)}, domains.classes
    )
    split = wk.leave_one_out(odd, "a/b", seed=0)
    student = wk.build_model("resnet10t", split.classes, seed=0, **SMALL)
    run = wk.train(
        student, split, steps=2, segment_length=2, batch_size=8, batchnorm_batches=1, save_to=tmp_path / "run",
        device="cpu", progress=False,
    )  # fmt: skip
    wk.evaluate(run, {"SWAD / mine": averaging.last(run.source_curves), "last": averaging.last(run.source_curves)})
    found = kept(run)
    assert found.keys() == {"SWAD / mine", "last"}
    for by_domain in found.values():
        assert {d: p.role for d, p in by_domain.items()} == {"a": "source", "of": "source", "a/b": "target"}


def test_predictions_of_another_recording_are_not_those_of_this_one(evaluated):
    """As when a run is measured while it is being recorded, and its recording goes on."""
    settings = json.loads((evaluated.folder / "settings.json").read_text())
    (evaluated.folder / "settings.json").write_text(json.dumps(settings | {"weight_decay": 0.5}))
    again = wk.load_run(evaluated.folder, split=evaluated.split)
    assert kept(evaluated) and kept(again) == {}
    wk.evaluate(again, {"last": averaging.last(again.source_curves)})
    assert kept(again).keys() == {"last"}


def test_predictions_that_were_cut_short_are_a_sentence(evaluated):
    file = evaluated.folder / "predictions.npz"
    whole = file.read_bytes()
    for part in (b"", whole[:-30], whole[: len(whole) // 2]):
        file.write_bytes(part)
        with pytest.raises(RunProblem, match=r"predictions.npz cannot be read .* Delete it"):
            kept(evaluated)

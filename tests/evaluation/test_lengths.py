"""Accuracy against the length of the average: every row is what evaluate says, every length what was asked for."""

import numpy as np
import pytest

import wakd_kit as wk
from wakd_kit.averaging import ema, power, relative_length
from wakd_kit.evaluation import lengths as lengths_of
from wakd_kit.evaluation.lengths import decay_of, lengths

from ..conftest import one_image


def test_every_row_is_what_evaluate_says(copied):
    run = copied
    table = wk.length_sweep(run, count=3)
    curves = run.source_curves
    choices = {"last": wk.averaging.last(curves)}
    for family, setting in table[["family", "setting"]].drop_duplicates().itertuples(index=False):
        if family == "exponential":
            choices[f"{family} {setting}"] = ema(curves, decay=setting, warmup=True, warmup_power=1)
        elif family == "power":
            choices[f"{family} {setting}"] = power(curves, sigma_rel=setting)
    scores = wk.evaluate(run, choices).set_index(["strategy", "domain"])
    images = {domain: len(examples) for domain, examples in run.split.val.items()}
    images[run.split.target] = len(run.split.target_for_testing_only)
    assert len(table) == 7 * len(images) and set(table["role"]) == {"source", "target"}
    for row in table.itertuples():
        label = "last" if row.family == "last" else f"{row.family} {row.setting}"
        expected = scores.loc[(label, row.domain)]
        assert row.accuracy == pytest.approx(expected["accuracy"], abs=one_image(images[row.domain]))
        assert row.loss == pytest.approx(expected["nll"], rel=1e-3)


def test_it_is_kept_and_read_again(copied):
    run = copied
    first = wk.length_sweep(run, count=2, name="kept")
    file = run.folder / "landscape" / "kept.csv"
    before = file.read_bytes()
    assert wk.length_sweep(run, count=2, name="kept").equals(first) and file.read_bytes() == before


def test_a_run_of_one_stored_segment_has_lengths(copied, monkeypatch):
    monkeypatch.setattr(lengths_of, "lengths", lambda curves, count, shortest: pytest.fail(f"from {shortest:.4f}"))
    copied.segments.index = [{**copied.segments.index[-1], "first": 1}]
    with pytest.raises(pytest.fail.Exception, match=r"from 0\.1443"):
        wk.length_sweep(copied)


def test_lengths_run_from_a_few_segments_to_the_plain_mean():
    curves = wk.averaging.as_curves(iterates=[10] * 100)
    found = lengths(curves, 5, 0.03)
    assert [family for family, *_ in found] == ["last", *["exponential"] * 5, *["power"] * 5]
    for family in ("exponential", "power"):
        reached = [length for name, length, *_ in found if name == family]
        np.testing.assert_allclose(reached, np.geomspace(0.03, 12**-0.5, 5), rtol=2e-2)
        widest = [c for name, *_, c in found if name == family][-1]
        np.testing.assert_allclose(np.asarray(widest), 0.01, atol=1e-3)


@pytest.mark.parametrize("length", [0.01, 0.1, 0.25])
def test_a_decay_has_the_length_it_was_asked_for(length):
    each = wk.averaging.as_curves(iterates=[1] * 3000)
    average = ema(each, decay=decay_of(length, 3000), warmup=True, warmup_power=1)
    assert relative_length(each, average) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"count": 1}, "count counts lengths of each family.*>= 2; got 1"),
        ({"shortest": 0.5}, "shortest is a length relative"),
        ({"shortest": 0}, "shortest is a length relative"),
    ],
)
def test_what_cannot_be_is_a_sentence(run, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        wk.length_sweep(run, **settings)

"""One more vector a segment: what the straight line through its iterates changes over it, merged exactly, and averages with it."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import wakd_kit as wk
from wakd_kit.runs.record import Recorder
from wakd_kit.runs.store import Segments, estimate_bytes

from ..conftest import patterns


def recorded(iterates, lengths, folder, storage="float32"):
    """Segments of these lengths, with ramps, of a network of one parameter vector that takes these values in turn."""
    model = nn.Linear(iterates.shape[1], 1, bias=False)
    model.weight.data.zero_()
    segments = Segments.create(folder, model.state_dict(), storage)
    recorder, at = Recorder(model, segments, ramps=True), 0
    for length in lengths:
        for one in iterates[at : at + length]:
            model.weight.data.copy_(torch.from_numpy(one)[None])
            recorder.add()
        at += length
        segments.append(*recorder.close(at))
    return segments


def slope(part):
    """What the least-squares line through iterates changes over as many steps, by numpy."""
    return np.polyfit(np.arange(len(part)), part, 1)[0] * len(part) if len(part) > 1 else 0 * part[0]


@pytest.mark.parametrize("storage, off", [("float32", 1e-5), ("float16_difference", 3e-3)])
def test_a_ramp_is_the_line_through_its_iterates_before_and_after_merges(storage, off, tmp_path):
    iterates = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    segments = recorded(iterates, [1, 4, 5, 2, 12], tmp_path / "s", storage)
    for _ in range(3):
        begins = [0, *segments.edges[:-1]]
        for k, (begin, end) in enumerate(zip(begins, segments.edges)):
            found = segments.read(k, "ramp")["weight"].numpy()[0]
            np.testing.assert_allclose(found, slope(iterates[begin:end]), atol=off * 4, rtol=off)
        assert segments.ramps
        segments.merge(1)


def test_merges_of_merges_are_the_segment_itself(tmp_path):
    iterates = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
    segments = recorded(iterates, [3] * 10, tmp_path / "s")
    segments.shrink(2, [])
    for k, (begin, end) in enumerate(zip([0, *segments.edges[:-1]], segments.edges)):
        np.testing.assert_allclose(segments.read(k, "ramp")["weight"].numpy()[0], slope(iterates[begin:end]), atol=2e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same training three times: every iterate stored; 24 segments merged to 6; the same with ramps."""
    domains = wk.domains_from_arrays({name: patterns(i) for i, name in enumerate("abc")}, tuple("wxyz"))
    split, folder = wk.leave_one_out(domains, "c", seed=0), tmp_path_factory.mktemp("ramps")
    return [
        wk.train(
            wk.build_model("resnet10t", 4, channels=(4, 8, 8, 8), stem_width=4, seed=0), split, steps=48, batch_size=8,
            learning_rate=1e-2, batchnorm="frozen", declare=[], save_to=folder / name, progress=False, device="cpu", **settings,
        )
        for name, settings in (
            ("all", {"segment_length": 1}),
            ("merged", {"segment_length": 2, "most_stored": 6}),
            ("ramps", {"segment_length": 2, "most_stored": 6, "ramps": True}),
        )
    ]  # fmt: skip


@pytest.mark.slow
def test_averages_that_merged_storage_displaces_are_closer_with_ramps(trained):
    everything, merged, ramps = trained
    assert len(merged.segments) == len(ramps.segments) < len(everything.segments) == 48
    names = [name for name, p in everything.blank_model().named_parameters()]

    def flat(state):
        return torch.cat([state[name].flatten().double() for name in names])

    last = flat(everything.average(wk.averaging.last(everything.source_curves)))
    for name, settings in (
        ("power", {"sigma_rel": 0.15}),
        ("power", {"sigma_rel": 0.05}),
        ("ema", {"decay": 0.9, "warmup": True, "warmup_power": 1}),
        ("wakd", {"begin": 14}),
    ):
        average = getattr(wk.averaging, name)
        right = flat(everything.average(average(everything.source_curves, **settings)))  # iterate by iterate
        with pytest.warns(UserWarning, match="merged segments"):
            wrong = flat(merged.average(average(merged.source_curves, **settings)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            close = flat(ramps.average(average(ramps.source_curves, **settings)))
        assert (close - right).norm() < 0.6 * (wrong - right).norm() and (close - right).norm() < 0.15 * (
            last - right
        ).norm(), name
    curves = merged.source_curves
    uniform = wk.averaging.uniform(curves)
    assert torch.equal(flat(merged.average(uniform)), flat(ramps.average(uniform)))
    with pytest.raises(wk.runs.record.RunProblem, match="moved to the nearest"):
        ramps.average(wk.averaging.wakd(curves, begin=14), exact=True)
    assert ramps.settings["ramps"] is True and not merged.segments.ramps


@pytest.mark.slow
def test_the_estimate_of_disk_holds_with_ramps(trained):
    *_, ramps = trained
    size = sum(file.stat().st_size for file in (ramps.folder / "segments").iterdir())
    model = ramps.blank_model()
    most = estimate_bytes(model, 6, "float32", merged=True, ramps=True)
    assert size < most["disk"] and most["disk"] > estimate_bytes(model, 6, "float32", merged=True)["disk"]

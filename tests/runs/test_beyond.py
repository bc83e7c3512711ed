"""Points beyond the iterates, of a real network: signs, means, ends and the start at once."""

import numpy as np
import pytest
import torch

import wakd_kit as wk


@pytest.mark.parametrize("choose", [wk.averaging.bema, wk.averaging.extrapolate])
def test_means_ends_and_the_start_are_weighed_at_once_and_with_signs(run, choose):
    choice = choose(run.source_curves)
    state, initial = run.average(choice, batchnorm="average"), run.segments.initial
    expected = {n: choice.initial * t.double() for n, t in initial.items() if t.is_floating_point()}
    for of, part in choice.parts.items():
        for k in np.flatnonzero(part):
            for name, tensor in run.segments.read(int(k), of).items():
                if name in expected:
                    expected[name] += part[k] * tensor.double()
    for name, _ in run.blank_model().named_parameters():
        torch.testing.assert_close(state[name].double(), expected[name], rtol=1e-5, atol=1e-6)
    for name, tensor in state.items():
        assert not name.endswith("running_var") or tensor.min() >= 0


def test_points_beyond_the_iterates_come_back_as_they_were(copied):
    choices = {
        "bema": wk.averaging.bema(copied.source_curves),
        "far": wk.averaging.extrapolate(copied.source_curves, amount=3),
    }
    copied.remember_choices(choices)
    for label, again in wk.load_run(copied.folder).choices.items():
        assert np.array_equal(again, choices[label]) and np.array_equal(again.parts["end"], choices[label].parts["end"])
        assert (again.initial, again.signed, again.note) == (choices[label].initial, True, choices[label].note)
    table = wk.choices_table(copied, choices).set_index("strategy")
    assert table["of"].tolist() == ["both", "mean"] and table.loc["far", "magnitude"] == pytest.approx(7)

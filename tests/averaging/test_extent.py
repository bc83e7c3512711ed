"""What an average takes of a run, by hand."""

import numpy as np
import pytest

from wakd_kit import averaging
from wakd_kit.averaging import Coefficients, Curves, NoWindow
from wakd_kit.averaging.extent import bars, density, extent, plain_window

CURVES = Curves(iterates=[10, 10, 20])


@pytest.mark.parametrize(
    "choice, taken, heights, window",
    [
        (averaging.window(CURVES, begin=10, end=40), (10, 40), [0, 1, 1], (10, 40)),
        (Coefficients([0, 0.5, 0.5]), (10, 40), [0, 1, 0.5], None),  # half of the weight on twice as many iterates
        (averaging.last(CURVES), (39, 40), [0, 0, 1], None),
        (Coefficients([0, 0, 0], initial=1.0), (0, 0), [0, 0, 0], None),
    ],
)
def test_steps_that_carry_weight_and_how_much_of_each(choice, taken, heights, window):
    assert extent(CURVES, choice) == taken and plain_window(CURVES, choice) == window
    np.testing.assert_allclose(density(CURVES, choice), heights)


def test_bars_are_means_and_then_single_iterates_each_over_the_largest_of_its_kind():
    mixed = Coefficients([0.5, 0, 1.0], ends=[0, -0.25, 0.5], initial=-0.75, signed=True)
    drawn = [(bar.begin, bar.end, bar.height, bar.single) for bar in bars(CURVES, mixed)]
    assert drawn[0] == (0, 0, -1.0, True), "the start ends at step 0, and is weighed beside last iterates"
    assert drawn[1:] == [(0, 10, 1.0, False), (20, 40, 1.0, False), (19, 20, -1 / 3, True), (39, 40, 2 / 3, True)]
    assert extent(CURVES, mixed) == (0, 40) and plain_window(CURVES, mixed) is None
    assert [bar.single for bar in bars(CURVES, averaging.last(CURVES))] == [True]


def test_a_start_alone_beside_means_is_drawn_at_their_scale():
    (start, *means) = bars(CURVES, averaging.ema(CURVES, decay=0.9, from_initial=True))
    assert (start.begin, start.end, start.single) == (0, 0, True) and len(means) == 3
    per_iterate = averaging.ema(CURVES, decay=0.9, from_initial=True) / CURVES.iterates
    assert start.height == pytest.approx(0.9**40 / per_iterate.max()) and means[-1].height == 1


def test_no_choice_is_no_window():
    assert plain_window(CURVES, NoWindow("none")) is None

"""What an average takes of a run, by hand."""

import numpy as np
import pytest

from wakd_kit import averaging
from wakd_kit.averaging import Coefficients, Curves, NoWindow
from wakd_kit.averaging.extent import density, extent, plain_window

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


def test_no_choice_is_no_window():
    assert plain_window(CURVES, NoWindow("none")) is None

"""Figures of landscapes, tested on what they would draw from tables made by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from wakd_kit import averaging
from wakd_kit.averaging import Curves, NoWindow
from wakd_kit.landscape.surface import Plane
from wakd_kit.plots import surface as landscape_figures
from wakd_kit.results.differences import interval

ROLES = {"ink": "source", "neon": "source", "photo": "target"}
SHIFT = {"ink": -0.1, "neon": 0.1, "photo": 1.0}  # the mean over source domains is the bowl itself


def bowl(x, y):
    """Loss over the plane: 0.2 at (8, 1), growing with the squared distance."""
    return 0.2 + ((x - 8) ** 2 + 4 * (y - 1) ** 2) / 20


@pytest.fixture
def valley():
    """11 x 7 points, x from -4 to 16 and y from -3 to 6; WAKD is a corner, SWAD lies off the plane, EMA nearly on it."""
    places = itertools.product(np.linspace(-3, 6, 7), np.linspace(-4, 16, 11), ROLES)
    rows = [(x, y, d, ROLES[d], bowl(x, y) + SHIFT[d], 1 / (1 + bowl(x, y))) for y, x, d in places]
    marks = [("last", 0, 0, 0), ("WAKD", 10, 0, 1e-6), ("SWAD", 9.5, 0.4, 2.5), ("EMA", 9.2, 0.2, 0.01)]
    marks = pd.DataFrame(marks, columns=["label", "x", "y", "residual"])
    own = [
        (label, d, ROLES[d], bowl(x, y) + SHIFT[d] + residual, 0.75)
        for label, x, y, residual in marks.itertuples(index=False)
        for d in ROLES
    ]
    return Plane(
        corners=pd.DataFrame([("last", 0, 0), ("WAKD", 10, 0), ("step 60", 12, 5)], columns=["label", "x", "y"]),
        marks=marks,
        path=pd.DataFrame({"step": [0, 60, 100], "x": [40, 12, 0], "y": [30, 5, 0], "residual": [7, 0, 0]}),
        table=pd.DataFrame(rows, columns=["x", "y", "domain", "role", "loss", "accuracy"]),
        points=pd.DataFrame(own, columns=["label", "domain", "role", "loss", "accuracy"]),
    )


def lines(axis):
    """{label: (x, y)} of everything plotted with a label."""
    return {line.get_label(): line.get_xydata().T for line in axis.lines if not line.get_label().startswith("_")}


def panels(figure):
    """The axes with a title: colour bars have none."""
    return [axis for axis in figure.axes if axis.get_title(loc="left")]


def titles(figure):
    return [axis.get_title(loc="left") for axis in panels(figure)]


# ---- the plane


@pytest.mark.parametrize("value", ["loss", "accuracy"])
def test_a_plane_of_which_nothing_is_a_number_is_drawn_and_says_so(valley, value):
    for table in (valley.table, valley.points):
        table.loc[table["role"] == "target", value] = np.nan
    figure, alt = landscape_figures.plane(valley, value=value)
    assert len(panels(figure)) == 2 and "is no number; " in alt and "nan" not in alt


@pytest.mark.parametrize("value, factor", [("loss", 1), ("accuracy", 100)])
def test_the_field_is_the_mean_over_a_roles_domains_source_beside_the_oracle(valley, value, factor):
    figure, _ = landscape_figures.plane(valley, value=value)
    unit = {"loss": "nats per example", "accuracy": "accuracy, %"}[value]
    assert titles(figure) == [f"Source validation, {unit}", f"Unseen domain (oracle), {unit}"]
    for axis, role in zip(panels(figure), ("source", "target")):
        field = axis.collections[0]
        values = factor * valley.grid(role, value)[2]
        np.testing.assert_allclose(field.zmin, values.min())
        np.testing.assert_allclose(field.zmax, values.max())
        assert (axis.get_xlim(), axis.get_ylim(), axis.get_aspect()) == ((-4, 16), (-3, 6), 1)


def test_losses_are_banded_at_equal_ratios_and_the_highest_share_a_colour(valley):
    field = panels(landscape_figures.plane(valley)[0])[0].collections[0]
    bands = field.levels
    np.testing.assert_allclose(bands[1:] / bands[:-1], bands[1] / bands[0])
    np.testing.assert_allclose(bands[[0, -1]], [0.2 + 0.25 / 5, np.quantile(valley.grid("source", "loss")[2], 0.8)])
    assert field.extend == "max"
    field = panels(landscape_figures.plane(valley, value="accuracy")[0])[0].collections[0]
    np.testing.assert_allclose(np.diff(field.levels), field.levels[1] - field.levels[0])
    assert field.extend == "min"


def test_points_stand_where_they_are_and_are_hollow_off_the_plane(valley):
    for axis in panels(landscape_figures.plane(valley)[0]):
        drawn = {line.get_label(): line for line in axis.lines}
        for label, x, y, residual in valley.marks.itertuples(index=False):
            assert drawn[label].get_xydata().tolist() == [[x, y]]
            hollow = to_hex(drawn[label].get_markerfacecolor()) == "#ffffff"
            assert hollow == (residual > 1), label
        assert drawn["_step 60"].get_xydata().tolist() == [[12, 5]]
        assert drawn["_trajectory"].get_xydata().tolist() == [[40, 30], [12, 5], [0, 0]]
        assert {note.get_text() for note in axis.texts} == {"last", "WAKD", "SWAD (2.5 off)", "EMA", "step 60"}


@pytest.mark.parametrize("crowd", [4, 9])
def test_labels_cover_no_point_and_no_other_label_and_stay_inside(valley, crowd):
    rng = np.random.default_rng(0)
    near = [(f"an average, {i}", *(rng.normal([9, 0], 0.3)), 0.5 * (i % 2)) for i in range(crowd)]
    valley.marks.loc[len(valley.marks)] = ("in a corner", 15.9, 5.9, 0.0)
    marks = pd.concat([valley.marks, pd.DataFrame(near, columns=valley.marks.columns)], ignore_index=True)
    crowded = Plane(valley.corners, marks, valley.path, valley.table, valley.points)
    figure, _ = landscape_figures.plane(crowded)
    figure.draw_without_rendering()
    for axis in panels(figure):
        boxes = [_text_box(note) for note in axis.texts]
        assert len(boxes) == len(marks) + 1
        assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
        points = axis.transData.transform(marks[["x", "y"]])
        assert not [p for p in points for box in boxes if box.contains(*p)]
        for box in boxes:
            assert axis.bbox.contains(box.x0, box.y0) and axis.bbox.contains(box.x1, box.y1)


def _text_box(note):
    """Of an annotation's text alone, without its line."""
    from matplotlib.text import Text

    return Text.get_window_extent(note)


def test_strategies_that_picked_the_same_share_a_label_and_what_is_outside_has_none(valley):
    valley.marks.loc[len(valley.marks)] = ("best_val", 0.0, 0.0, 0.0)
    valley.marks.loc[len(valley.marks)] = ("far", 50.0, 0.0, 0.0)
    axis = panels(landscape_figures.plane(valley)[0])[0]
    written = [note.get_text() for note in axis.texts]
    assert "last, best_val" in written and "best_val" not in written and "far" not in written


def test_alt_of_the_plane_has_the_lowest_losses_and_those_of_the_averages(valley):
    _, alt = landscape_figures.plane(valley)
    assert alt.startswith("Loss on 77 points of the plane through last, WAKD, step 60.")
    # nearest to (8, 1) is the grid point (8, 1.5)
    assert "The lowest on source validation is 0.25 nats; last 3.6 nats, WAKD 0.6 nats, " in alt
    assert "The lowest on the unseen domain (oracle) is 1.25 nats; last 4.6 nats, " in alt
    assert alt.endswith("Off the plane: SWAD by 2.5.")
    assert (
        "The highest on source validation is 80.0%; last 75.0%" in landscape_figures.plane(valley, value="accuracy")[1]
    )
    assert landscape_figures.lowest(valley, "source") == pytest.approx((0.25, 8, 1.5))


def test_a_constant_field_and_a_plane_without_a_target_can_be_drawn(valley):
    flat = valley.table[valley.table["role"] == "source"].assign(loss=1.5, accuracy=0.5)
    same = Plane(valley.corners, valley.marks, valley.path, flat, valley.points)
    for value in ("loss", "accuracy"):
        assert len(panels(landscape_figures.plane(same, value=value)[0])) == 1


def test_an_unknown_value_is_a_sentence(valley):
    with pytest.raises(ValueError, match="value is one of loss, accuracy; got 'acc'"):
        landscape_figures.plane(valley, value="acc")


# ---- lines


@pytest.fixture
def sides():
    """A bump of 0.5 in the middle on the target, a dip everywhere else; the source domains differ by 0.2."""
    t = np.linspace(0, 1, 5)
    bump = np.array([0, 0.2, 0.5, 0.2, 0])
    tables = {}
    for label, sign in (("last to WAKD", -1), ("WAKD to step 60", 1)):
        rows = [
            pd.DataFrame(
                {"t": t, "domain": d, "role": r, "loss": 1 + SHIFT[d] + t + (sign if r == "target" else -1) * bump}
            )
            for d, r in ROLES.items()
        ]
        tables[label] = pd.concat(rows)
    return tables


def test_lines_are_means_over_domains_and_a_barrier_reaches_from_the_chord_to_the_curve(sides):
    figure, alt = landscape_figures.barriers(sides)
    source, target = figure.axes
    assert titles(figure) == ["Source validation, nats per example", "Unseen domain (oracle), nats per example"]
    shown = lines(source)
    np.testing.assert_allclose(shown["last to WAKD: no barrier"], [[0, 0.25, 0.5, 0.75, 1], [1, 1.05, 1, 1.55, 2]])
    assert set(lines(target)) == {"last to WAKD: no barrier", "WAKD to step 60: a barrier of 0.5"}
    bars = [line.get_xydata().tolist() for line in target.lines if line.get_lw() == 2.5]
    np.testing.assert_allclose(bars, [[[0.5, 2.5], [0.5, 3.0]]])  # at 1 + 1 + 0.5 on the chord
    assert not [line for line in source.lines if line.get_lw() == 2.5]
    assert alt.endswith(
        "On the unseen domain (oracle), in nats: last to WAKD no barrier, WAKD to step 60 a barrier of 0.5."
    )


def test_a_line_through_what_diverged_has_a_wall_that_is_not_drawn(sides):
    table = sides["last to WAKD"]
    broken = table.assign(loss=table["loss"].mask((table["t"] == 0.5) & (table["domain"] == "ink")))
    figure, alt = landscape_figures.barriers({"last to WAKD": broken})
    source = figure.axes[0]
    assert set(lines(source)) == {"last to WAKD: a barrier of inf"} and "a barrier of inf. On the unseen" in alt
    assert not [line for line in source.lines if line.get_lw() == 2.5]


# ---- flatness


@pytest.fixture
def rises():
    """Rise = steepness x radius^2 x (1 + direction / 10), half of it on one source domain and 1.5 times on the other."""
    steep = {"last": 2.0, "WAKD": 1.0}
    weight = {"ink": 0.5, "neon": 1.5, "photo": 3.0}
    rows = [
        (s, r, k, d, ROLES[d], 1.0, steep[s] * weight[d] * r**2 * (1 + k / 10))
        for s, r, k, d in itertools.product(steep, (1.0, 2.0), range(4), ROLES)
    ]
    return pd.DataFrame(rows, columns=["strategy", "radius", "direction", "domain", "role", "loss", "increase"])


def test_rises_start_at_zero_with_a_band_over_directions(rises):
    figure, alt = landscape_figures.flatness(rises)
    source, target = figure.axes
    assert titles(figure) == ["Source validation, rise in nats", "Unseen domain (oracle), rise in nats"]
    np.testing.assert_allclose(lines(source)["last"], [[0, 1, 2], [0, 2.3, 9.2]])
    np.testing.assert_allclose(lines(target)["WAKD"], [[0, 1, 2], [0, 3.45, 13.8]])
    low, high = interval(8 * (1 + np.arange(4) / 10))
    band = source.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(sorted(band[band[:, 0] == 2, 1])[0], low)
    np.testing.assert_allclose(sorted(band[band[:, 0] == 2, 1])[-1], high)
    assert "at radius 2, mean and 95 % interval over 4 directions" in alt
    assert f"On source validation: last 9.2 [{low:.3g}, {high:.3g}], WAKD 4.6" in alt


def test_bands_of_several_runs_are_over_runs(rises):
    factors = {"a": 1.0, "b": 1.5, "c": 0.5}
    several = pd.concat([rises.assign(run=run, increase=f * rises["increase"]) for run, f in factors.items()])
    figure, alt = landscape_figures.flatness(several)
    np.testing.assert_allclose(lines(figure.axes[0])["last"][1], [0, 2.3, 9.2])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    low, high = interval([9.2, 13.8, 4.6])
    np.testing.assert_allclose([band[band[:, 0] == 2, 1].min(), band[band[:, 0] == 2, 1].max()], [low, high])
    assert "over 3 runs" in alt


# ---- curvature


@pytest.fixture
def hessians():
    rows = []
    for (s, factor), (d, role) in itertools.product({"last": 2, "WAKD": 1}.items(), ROLES.items()):
        rows += [(s, d, role, "eigenvalue", k, factor * 10 / k, np.nan) for k in (1, 2, 5)]
        rows.append((s, d, role, "trace", 0, factor * 40, factor * 1.5))
    columns = ["strategy", "domain", "role", "kind", "rank", "value", "standard_error"]
    return pd.DataFrame(rows, columns=columns)


def test_bars_are_largest_eigenvalues_and_traces_with_the_unseen_domain_on_top(hessians):
    figure, alt = landscape_figures.eigenvalues(hessians)
    top, trace = figure.axes
    assert [t.get_text() for t in top.get_yticklabels()] == ["photo (unseen, oracle)", "ink", "neon"]
    assert top.get_ylim()[0] > top.get_ylim()[1]
    bars = {(round(b.get_y() + b.get_height() / 2), to_hex(b.get_facecolor())): b.get_width() for b in top.patches}
    assert sorted(bars.values()) == [10, 10, 10, 20, 20, 20] and len(bars) == 6
    ticks = [line.get_xdata().tolist() for line in top.lines if line.get_marker() == "|"]
    assert ticks == [[10, 4]] * 3 + [[5, 2]] * 3
    assert sorted(b.get_width() for b in trace.patches) == [40] * 3 + [80] * 3
    spans = [np.diff(c.get_segments()[0][:, 0]).item() for c in trace.collections]
    np.testing.assert_allclose(spans, [6] * 3 + [3] * 3)  # twice the standard error
    assert [t.get_text() for t in trace.get_legend().get_texts()] == ["last", "WAKD"]
    assert "WAKD on photo: largest 10, trace 40 (standard error 1.5)" in alt


# ---- along training


@pytest.fixture
def recorded():
    """Ten segments of 10 iterates, four choices, and their scores."""
    curves = Curves(iterates=np.full(10, 10), val_accuracy=np.linspace(0.5, 0.9, 10))
    choices = {
        "last": averaging.last(curves),
        "swad": NoWindow("validation loss fell to the last segment"),
        "wakd": averaging.wakd(curves, begin=20),
        "ema": averaging.ema(curves, decay=0.95),
    }
    reached = {"last": 0.9, "swad": np.nan, "wakd": 0.94, "ema": 0.945}
    rows = [(s, d, r, a - 0.3 * (r == "target") + SHIFT[d] / 10) for s, a in reached.items() for d, r in ROLES.items()]
    return curves, choices, pd.DataFrame(rows, columns=["strategy", "domain", "role", "accuracy"])


def test_bars_lie_over_what_is_averaged_at_the_accuracy_it_reaches(recorded):
    figure, alt = landscape_figures.along_training(*recorded)
    assert titles(figure) == ["Source validation, accuracy in %", "Unseen domain (oracle), accuracy in %"]
    for axis, heights in zip(figure.axes, ([90, 94, 94.5], [70, 74, 74.5])):
        spans = [np.array(c.get_segments()) for c in axis.collections]
        assert [(s[..., 0].min(), s[..., 0].max()) for s in spans] == [(99, 100), (20, 100), (0, 100)]
        np.testing.assert_allclose([s[0, 0, 1] for s in spans], heights)
        assert {t.get_text() for t in axis.texts} == {f"{n} {h:.1f}" for n, h in zip(("last", "wakd", "ema"), heights)}
    opacity = figure.axes[0].collections[2].get_alpha()
    np.testing.assert_allclose(opacity, np.asarray(recorded[1]["ema"]) / recorded[1]["ema"].max())
    assert "on source validation: last 90.0 %, wakd 94.0 %, ema 94.5 %." in alt and "swad found no window." in alt


def test_an_average_that_diverged_has_no_bar_and_is_named(recorded):
    curves, choices, scores = recorded
    scores["accuracy"] = scores["accuracy"].mask(scores["strategy"] == "last")
    figure, alt = landscape_figures.along_training(curves, choices, scores)
    assert {text.get_text() for text in figure.axes[1].texts} == {"wakd 74.0", "ema 74.5"}
    assert "on source validation: last has no accuracy, wakd 94.0 %" in alt
    broken = scores["accuracy"].mask((scores["strategy"] == "ema") & (scores["domain"] == scores["domain"].iloc[0]))
    _, alt = landscape_figures.along_training(curves, choices, scores.assign(accuracy=broken))
    assert "on source validation: last has no accuracy, wakd 94.0 %, ema has no accuracy" in alt, (
        "not a mean over the others"
    )
    source, _ = landscape_figures.along_training(curves, choices, scores[scores["role"] == "source"])[0].axes
    assert {text.get_text() for text in source.texts} == {"wakd 94.0", "ema 94.5"}


def test_the_unseen_domain_has_a_curve_only_where_a_window_map_measured_one(recorded):
    source, target = landscape_figures.along_training(*recorded)[0].axes
    curve = next(line for line in source.lines if len(line.get_xdata()) == 10)
    np.testing.assert_allclose(curve.get_xydata().T, [recorded[0].ends, 100 * recorded[0].val_accuracy])
    assert all(len(line.get_xdata()) == 1 for line in target.lines)
    windows = pd.DataFrame(
        [(0, 50, 0.4), (0, 100, 0.6), (50, 100, 0.5)], columns=["begin", "end", "oracle_target_accuracy"]
    )
    target = landscape_figures.along_training(*recorded, windows)[0].axes[1]
    curve = next(line for line in target.lines if len(line.get_xdata()) == 2)
    np.testing.assert_allclose(curve.get_xydata(), [[25, 40], [75, 50]])  # single cells, at their middle


def test_labels_beside_the_axis_keep_their_order_and_a_distance(recorded):
    for axis in landscape_figures.along_training(*recorded)[0].axes:
        order = sorted(axis.texts, key=lambda note: note.xy[1])
        heights = [note.xyann[1] for note in order]
        gap = np.diff(axis.get_ylim()).item() / 14
        assert np.diff(heights).min() > 0.999 * gap and heights[-1] <= axis.get_ylim()[1] + 1e-9


# ---- all of them


def test_nothing_is_cut_off_at_the_edge(valley, sides, rises, hessians, recorded):
    for figure, _ in (
        landscape_figures.plane(valley),
        landscape_figures.plane(valley, value="accuracy"),
        landscape_figures.barriers(sides),
        landscape_figures.flatness(rises),
        landscape_figures.eigenvalues(hessians),
        landscape_figures.along_training(*recorded),
    ):
        figure.draw_without_rendering()
        inked, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert inked.x0 > -0.02 and inked.y0 > -0.02 and inked.x1 < width + 0.02 and inked.y1 < height + 0.02

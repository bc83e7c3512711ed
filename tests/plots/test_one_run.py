"""Figures, tested on what they would draw: data, positions and words, not pixels."""

import io
import re
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.averaging import Coefficients, Curves, NoWindow
from wakd_kit.averaging.curves import noted
from wakd_kit.plots import many_runs as study_figures
from wakd_kit.plots import one_run as figures
from wakd_kit.plots import style

SWAD_REASON = NoWindow("validation loss fell to the last segment")


@pytest.fixture
def curves():
    """Ten segments of 10 iterates."""
    accuracy = np.linspace(0.5, 0.9, 10)
    return Curves(
        iterates=np.full(10, 10),
        train_loss=np.linspace(2, 0.1, 10),
        val_loss=np.linspace(2, 0.5, 10),
        val_accuracy=accuracy,
        per_domain={"val_accuracy": {"ink": accuracy - 0.1, "art_painting": accuracy + 0.1}},
    )


@pytest.fixture
def choices(curves):
    return {
        "last": averaging.last(curves),
        "swad": SWAD_REASON,
        "wakd": averaging.wakd(curves, begin=20),
        "window": averaging.window(curves, begin=40, end=70),
        "ema": averaging.ema(curves, decay=0.95),
    }


def lines(axis):
    """{label: (x, y)} of everything plotted with a label."""
    return {line.get_label(): line.get_xydata().T for line in axis.lines if not line.get_label().startswith("_")}


def ticks(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


# ---- contact sheet


def test_contact_sheet_has_an_image_of_every_class_and_domain(domains):
    figure, alt = figures.contact_sheet(domains)
    (axis,) = figure.axes
    assert ticks(axis) == list(domains) and [text.get_text() for text in axis.get_xticklabels()] == ["a", "b", "c", "d"]
    for place, image in enumerate(axis.images):
        row, label = divmod(place, 4)
        left, right, bottom, top = image.get_extent()
        assert (label < left < right < label + 1) and (row < top < bottom < row + 1)
        examples = domains[list(domains)[row]]
        own = examples.images[examples.labels == label]
        assert (own == image.get_array()).all(axis=(1, 2, 3)).any(), (row, label)
    assert len(axis.images) == 16
    assert "4 classes" in alt and "south (80 images)" in alt


def test_contact_sheet_shows_as_many_classes_as_asked(domains):
    figure, alt = figures.contact_sheet(domains, columns=2)
    assert len(figure.axes[0].images) == 8 and "the first 2 of 4 classes" in alt


def test_a_class_that_a_domain_lacks_leaves_its_place_empty():
    images = np.zeros((3, 8, 8, 3), dtype=np.uint8)
    lacking = {"north": (images, np.array([0, 1, 2])), "south": (images[:2], np.array([0, 2]))}
    (axis,) = figures.contact_sheet(wk.domains_from_arrays(lacking, ("a", "b", "c")))[0].axes
    assert [image.get_extent()[0] // 1 for image in axis.images] == [0, 1, 2, 0, 2]


# ---- training curves


def test_curves_are_drawn_at_the_steps_they_were_measured_at(curves, choices):
    figure, _ = figures.training_curves(curves, choices)
    loss, accuracy, _ = figure.axes
    steps = np.arange(10, 101, 10)
    assert loss.get_yscale() == "log"
    for label, values in (("training objective", curves.train_loss), ("validation cross-entropy", curves.val_loss)):
        np.testing.assert_allclose(lines(loss)[label], [steps, values])
    assert "validation KL to the teacher" not in lines(loss), "nothing is drawn that was not recorded"
    shown = lines(accuracy)
    np.testing.assert_allclose(shown["mean of source domains"], [steps, 100 * curves.val_accuracy])
    np.testing.assert_allclose(shown["art painting"][1], 100 * curves.per_domain["val_accuracy"]["art_painting"])
    assert len(shown) == 3


def test_bars_cover_the_iterates_that_a_strategy_averages(curves, choices):
    figure, _ = figures.training_curves(curves, choices)
    strip = figure.axes[2]
    assert ticks(strip) == list(choices)
    bars = {name: [] for name in choices}
    for bar in strip.patches:
        bars[list(choices)[round(bar.get_y() - 0.4)]].append((bar.get_x(), bar.get_x() + bar.get_width()))
    spans = {name: (min(b)[0], max(e for _, e in b)) for name, b in bars.items() if b}
    assert spans["wakd"] == (20, 100) and spans["window"] == (40, 70) and spans["ema"] == (0, 100)
    assert spans["last"][1] == 100 and spans["last"][0] >= 90
    assert bars["swad"] == [] and [t.get_text() for t in strip.texts] == ["no window"]
    assert strip.texts[0].get_position()[1] == 1, "on the row of the strategy that found none"


def test_the_start_is_drawn_and_negative_coefficients_hang_below_their_line():
    curves = Curves(iterates=[10] * 10, val_accuracy=[0.5] * 10)
    mixed = {"bema": averaging.bema(curves), "wise_ft": averaging.wise_ft(curves), "uniform": averaging.uniform(curves)}
    strip = figures.training_curves(curves, mixed)[0].axes[2]
    bars = [(b.get_x(), b.get_x() + b.get_width(), b.get_y(), b.get_height(), b.get_hatch()) for b in strip.patches]
    start = next(b for b in bars if b[4] and b[2] == 0)
    assert start[:2] == (0, 1) and start[3] == pytest.approx(0.4), (
        "bema's start is negative: down from the line of its row"
    )
    last = next(b for b in bars if b[1] == 100 and b[2] == 0 and b[0] == 99)
    assert last[3] == pytest.approx(-0.4 * mixed["bema"].ends[-1] / -mixed["bema"].initial)
    wise = [b for b in bars if b[2] == pytest.approx(1.4)]
    assert [b[3] for b in wise] == pytest.approx([-0.8 / 3, -0.8]) and [bool(b[4]) for b in wise] == [True, False]
    assert strip.patches[-1].get_y() == pytest.approx(2.4) and not strip.patches[-1].get_hatch()


def test_heights_of_bars_are_coefficients_per_iterate(curves, choices):
    strip = figures.training_curves(curves, choices)[0].axes[2]
    heights = [abs(b.get_height()) for b in strip.patches if round(b.get_y() - 0.4) == 4]
    expected = np.asarray(choices["ema"]) / choices["ema"].max() * 0.8
    np.testing.assert_allclose(heights, expected)


def test_segments_of_unequal_length_weigh_by_their_iterates():
    curves = Curves(iterates=[2, 8], val_accuracy=[0.1, 0.2])
    strip = figures.training_curves(curves, {"uniform": averaging.uniform(curves)})[0].axes[2]
    assert [b.get_width() for b in strip.patches] == [2, 8]
    assert np.allclose([b.get_height() for b in strip.patches], -0.8), "every iterate counts the same"


def test_alt_of_the_curves_has_the_numbers_and_the_picks(curves, choices):
    _, alt = figures.training_curves(curves, choices)
    assert "100 steps" in alt and "ends at 90.0%" in alt
    assert f"wakd picks {choices['wakd'].note}." in alt and "swad found no window." in alt


def test_labels_of_several_lines_stand_apart_below_the_curves(curves):
    names = [
        f"{letter} strategy whose name says that it was chosen by what source validation told at step {n}"
        for n, letter in enumerate("abcdef")
    ]
    figure, _ = figures.training_curves(curves, dict.fromkeys(names, averaging.last(curves)))
    figure.savefig(io.BytesIO(), bbox_inches="tight")  # drawn twice, as where it is saved: then the layout has settled
    boxes = [label.get_window_extent() for label in figure.axes[-1].get_yticklabels()]
    assert len({label.get_text().count("\n") for label in figure.axes[-1].get_yticklabels()}) == 1
    assert all(upper.y0 >= lower.y1 for upper, lower in zip(boxes, boxes[1:]))


def test_curves_alone_have_no_empty_strip(curves):
    assert len(figures.training_curves(curves)[0].axes) == 2


def test_more_source_domains_than_colours_can_be_drawn():
    many = {f"domain_{i}": np.full(3, i / 20) for i in range(11)}
    curves = Curves(iterates=[1, 1, 1], val_accuracy=[0.1, 0.2, 0.3], per_domain={"val_accuracy": many})
    assert len(lines(figures.training_curves(curves)[0].axes[1])) == 12


# ---- accuracy by domain


@pytest.fixture
def table():
    rows = [
        ("last", "ink", "source", 0.8),
        ("last", "neon", "source", 0.7),
        ("last", "art_painting", "target", 0.5),
        ("swad", "ink", "source", np.nan),
        ("swad", "neon", "source", np.nan),
        ("swad", "art_painting", "target", np.nan),
        ("wakd", "ink", "source", 0.9),
        ("wakd", "neon", "source", 0.6),
        ("wakd", "art_painting", "target", 0.55),
    ]
    found = pd.DataFrame(rows, columns=["strategy", "domain", "role", "accuracy"])
    return found.assign(note=np.where(found["accuracy"].isna(), "swad found no window: too short", "some iterates"))


def test_markers_stand_at_accuracies_with_the_unseen_domain_on_top(table):
    figure, alt = figures.accuracy_by_domain(table)
    (axis,) = figure.axes
    assert ticks(axis) == ["art painting (unseen)", "ink", "neon"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "row 0 is the upper one"
    shown = lines(axis)
    np.testing.assert_allclose(shown["last"][0], [50, 80, 70])
    np.testing.assert_allclose(shown["wakd"][0], [55, 90, 60])
    assert (np.round(shown["wakd"][1]) == [0, 1, 2]).all() and (shown["wakd"][1] != shown["last"][1]).all()
    assert "last 50.0%" in alt and "wakd 55.0%" in alt and "art_painting" in alt


def test_a_strategy_without_a_window_is_named_and_not_drawn(table):
    figure, alt = figures.accuracy_by_domain(table)
    assert np.isnan(lines(figure.axes[0])["swad (found no window)"][0]).all() and "swad found no window" in alt
    table["note"] = table["note"].str.replace("swad found no window: too short", "This run has no 'val_kd_loss' curve.")
    assert "swad found no window" in figures.accuracy_by_domain(table)[1]
    table.loc[table["strategy"] == "swad", "note"] = noted("segments 3 to 5", np.nan)
    assert "swad diverged" in figures.accuracy_by_domain(table)[1]


def test_of_a_run_that_left_no_domain_out_source_validation_is_drawn(table):
    figure, alt = figures.accuracy_by_domain(table[table["role"] == "source"])
    np.testing.assert_allclose(lines(figure.axes[0])["wakd"][0], [90, 60])
    assert alt == "Accuracy on source validation (mean): last 75.0%, swad found no window, wakd 75.0%."


# ---- window map


@pytest.fixture
def windows():
    """Five steps of 20; the accuracy of a window is told by its begin and end."""
    edges = [20, 40, 60, 80, 100]
    rows = [(b, e, 0.5 + e / 1000, 0.3 + b / 1000 + e / 10_000) for b in [0, *edges[:-1]] for e in edges if e > b]
    return pd.DataFrame(rows, columns=["begin", "end", "val_accuracy", "oracle_target_accuracy"])


def test_cells_of_the_map_lie_at_their_begin_and_end(windows, curves):
    figure, _ = figures.window_map(windows, curves)
    for axis, column in zip(figure.axes, ("val_accuracy", "oracle_target_accuracy")):
        (mesh,) = axis.collections
        corners = mesh.get_coordinates()
        assert corners[0, :, 0].tolist() == corners[:, 0, 1].tolist() == [0, 20, 40, 60, 80, 100]
        values = np.ma.filled(mesh.get_array().reshape(5, 5), np.nan)
        for _, w in windows.iterrows():
            row, cell = int(w["begin"]) // 20, int(w["end"]) // 20 - 1
            assert values[row, cell] == pytest.approx(100 * w[column])
        assert np.isnan(values[np.tril_indices(5, -1)]).all(), "no window ends before it begins"
        assert axis.get_ylim() == (100, 0) and axis.get_xlim() == (0, 100)
    titles = [axis.get_title(loc="left") for axis in figure.axes[:2]]
    assert "oracle" in titles[1] and "oracle" not in titles[0]


def test_the_scale_of_a_weak_run_begins_at_zero_with_colours_as_far_apart(windows, curves):
    windows["oracle_target_accuracy"] = windows["begin"] / 4000
    figure, _ = figures.window_map(windows, curves)
    strong, weak = (axis.collections[0] for axis in figure.axes[:2])
    assert weak.norm.vmax - weak.norm.vmin == pytest.approx(strong.norm.vmax - strong.norm.vmin)
    assert weak.norm.vmin < 0 and weak.colorbar.ax.get_ylim() == (0, weak.norm.vmax)
    assert (strong.colorbar.extend, weak.colorbar.extend) == ("min", "neither")


def test_picks_are_marked_in_the_cell_of_their_window(windows, curves, choices):
    figure, alt = figures.window_map(windows, curves, choices)
    for axis in figure.axes[:2]:
        marks = {name: (x.item(), y.item()) for name, (x, y) in lines(axis).items() if name in choices}
        assert marks == {"wakd": (100, 20), "window": (70, 40)}, (
            "where they end and begin; ema and last are no plain means over a window"
        )
    assert "wakd averages from step 20 to 100." in alt and "window averages from step 40 to 70." in alt


def test_picks_of_one_window_stand_side_by_side_in_its_cell(windows, curves):
    same = {name: averaging.window(curves, begin=40, end=80) for name in ("swad", "sma", "wakd")}
    shown = lines(figures.window_map(windows, curves, same)[0].axes[0])
    x = [shown[name][0].item() for name in same]
    assert len(set(x)) == 3 and min(x) >= 60 and max(x) == 80
    assert {shown[name][1].item() for name in same} == {40}


def test_the_best_of_the_oracle_is_ringed_there_and_there_only(windows, curves):
    figure, alt = figures.window_map(windows, curves, images=400)
    assert "best of the oracle" not in lines(figure.axes[0])
    np.testing.assert_allclose(lines(figure.axes[1])["best of the oracle"], [[100], [80]])  # from step 80 to 100
    assert "from step 80 to 100: 39.0%" in alt and "15 windows" in alt
    assert "± 2.4" in figure.axes[1].get_title(loc="left")  # sqrt(.39 * .61 / 400)


def test_what_noise_cannot_tell_from_the_best_is_hatched_and_both_scales_are_as_long(windows, curves):
    figure, _ = figures.window_map(windows, curves, images=400, source_images=[100, 100, 100])
    source, target = figure.axes[:2]
    scales = [(mesh.norm.vmin, mesh.norm.vmax) for axis in (source, target) for mesh in axis.collections]
    assert scales[0][1] - scales[0][0] == pytest.approx(scales[1][1] - scales[1][0])
    assert [high for _, high in scales] == pytest.approx([60, 39])  # each from its own best
    hatched = {(p.get_x() + p.get_width(), p.get_y()) for p in target.patches if p.get_hatch()}
    error = 2 * 100 * np.sqrt(0.39 * 0.61 / 400)
    near = windows[100 * windows["oracle_target_accuracy"] >= 39 - error]
    assert hatched == set(zip(near["end"], near["begin"])) and 1 < len(hatched) < len(windows)
    assert "± 2.8" in source.get_title(loc="left")  # sqrt(.6 * .4 * 3 / 100) / 3
    assert not [p for axis in figures.window_map(windows, curves)[0].axes[:2] for p in axis.patches], (
        "no images, no noise"
    )


def test_a_map_of_windows_that_diverged_says_so(windows, curves):
    scores, late = ["val_accuracy", "oracle_target_accuracy"], windows["end"] == windows["end"].max()
    some = windows.assign(**windows[scores].mask(late))
    assert re.search(r"%; the last cell, from step \d+, diverged\.$", figures.window_map(some, curves, images=400)[1])
    figure, alt = figures.window_map(windows.assign(**dict.fromkeys(scores, np.nan)), curves, images=400)
    assert not figure.axes[1].lines and "nan" not in figure.axes[1].get_title(loc="left")
    assert alt.endswith("none of which has an accuracy: training diverged.")


def test_a_map_of_a_single_window_can_be_drawn(curves):
    table = pd.DataFrame([{"begin": 0, "end": 100, "val_accuracy": 0.5, "oracle_target_accuracy": 0.4}])
    _, alt = figures.window_map(table, curves, {"uniform": averaging.uniform(curves)})
    assert "Map of 1 window." in alt


def test_the_last_cell_of_a_coarse_map_is_said_as_what_it_is_and_a_perfect_one_is_not_exact(windows, curves):
    coarse = windows[windows["begin"].isin([0, 40]) & windows["end"].isin([40, 100])]
    assert "the last cell, from step 40, reaches" in figures.window_map(coarse, curves)[1]
    perfect = coarse.assign(oracle_target_accuracy=[0.5, 0.999, 1.0])
    target = figures.window_map(perfect, curves, images=400)[0].axes[1]
    assert len([p for p in target.patches if p.get_hatch()]) == 2 and "± 0.2" in target.get_title(loc="left")


# ---- many runs


def test_differences_are_dots_over_their_mean_and_interval_grouped_by_student_on_one_zero():
    table = pd.DataFrame(
        {
            "label": ["kd: wakd - last", "kd: swad - last", "kd last - ce last"],
            "student": ["kd", "kd", ""],
            "pairs": [np.array([1.0, 2.0, 6.0]), np.array([]), np.array([40.0])],
            "pair_targets": [["ink", "ink", "neon"], [], ["neon"]],
            "mean": [3.0, np.nan, 40.0],
            "low": [-3.5, np.nan, np.nan],
            "high": [9.5, np.nan, np.nan],
            "n": [3, 0, 1],
        }
    )
    figure, alt = study_figures.differences(table, baseline="last")
    (axis,) = figure.axes
    assert ticks(axis) == ["wakd", "swad", "kd last − ce last"] and axis.get_yticks().tolist() == [1, 2, 4]
    dots = {
        line.get_marker(): line.get_xdata().tolist()
        for line in axis.lines
        if line.get_zorder() == 3 and len(line.get_xdata())
    }
    assert dots == {"o": [1, 2], "s": [40]}, "a marker for each target, over the interval"
    first = [line for line in axis.lines if line.get_marker() == "s" and 6 in line.get_xdata()]
    assert first and abs(first[0].get_ydata()[0] - 1) < 0.5
    interval = axis.collections[0].get_segments()[0]
    assert interval.tolist() == [[-3.5, 1], [9.5, 1]] and axis.collections[0].get_zorder() < 3
    means = [line for line in axis.lines if line.get_marker() == "|"]
    assert [m.get_color() for m in means] == [style.hue("wakd"), style.hue("swad"), style.INK[1]]
    assert means[0].get_xydata().tolist() == [[3, 1]]
    assert [line.get_xdata() for line in axis.lines if list(line.get_xdata()) == [0, 0]] == [[0, 0]], (
        "zero has one line"
    )
    said = [text.get_text() for text in axis.texts]
    assert said == ["kd: difference to last", "  no pair with a score on both sides", "between students"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ink", "neon"]
    assert "kd: wakd - last +3.0 [-3.5, +9.5]" in alt and "nan" not in alt
    many = table.assign(pairs=[np.arange(9.0)] * 3, pair_targets=[[*"abcdefghi"]] * 3)
    assert len(study_figures.differences(many, baseline="last")[0].axes[0].get_legend().get_texts()) == 9


@pytest.fixture
def chosen():
    rows = [
        ("teacher", "last", 99, 100),
        ("teacher", "swad", 60, 100),
        ("teacher", "swad", 30, 90),
        ("teacher", "swad", np.nan, np.nan),
        ("student", "swad", np.nan, np.nan),
    ]
    return pd.DataFrame(rows, columns=["student", "strategy", "begin", "end"])


def test_picks_are_lines_from_begin_to_end_and_single_iterates_are_dots(chosen):
    (axis,) = study_figures.picks(chosen, steps=100)[0].axes
    drawn = [line for line in axis.lines if line.get_xydata()[0][0] != 0]
    dot, first, second = drawn
    assert dot.get_xydata().tolist() == [[100, 0]] and dot.get_marker() == "o"
    assert [line.get_xdata().tolist() for line in (first, second)] == [[30, 90], [60, 100]], "sorted by begin"
    assert 0.5 < first.get_ydata()[0] < second.get_ydata()[0] < 1.5
    assert ticks(axis) == ["teacher last", "teacher swad (1 without)", "student swad (1 without)"]
    assert axis.get_xlim() == (0, 100)


def test_a_strategy_has_one_colour_for_all_students(chosen):
    chosen.loc[4, ["begin", "end"]] = 50, 100
    (axis,) = study_figures.picks(chosen, steps=100)[0].axes
    colours = {to_hex(line.get_color()) for line in axis.lines if line.get_ydata()[0] > 0.6 and line.get_lw() > 1}
    assert len(colours) == 1


def test_alt_of_the_picks_has_means_and_says_what_is_missing(chosen):
    _, alt = study_figures.picks(chosen, steps=100)
    assert "teacher swad: 45 to 95 (1 runs without a window)" in alt
    assert "student swad: no window" in alt and "nan" not in alt


def test_a_dozen_things_can_be_told_apart_without_a_hue():
    assert len({(style.ink(i), style.marker(i)) for i in range(12)}) == 12


def test_coefficients_of_initial_parameters_are_no_window(windows, curves):
    half = Coefficients(np.full(10, 0.05), initial=0.5)
    shown = lines(figures.window_map(windows, curves, {"half": half})[0].axes[0])
    assert "half" not in shown


# ---- ranks and reliability


@pytest.fixture
def ranks():
    """Two students; WAKD and EMA of KD lie within the critical difference, last does not."""
    rows = [
        ("KD", "last", 2.9, 8, 0.004, 1.2),
        ("KD", "WAKD", 1.2, 8, 0.004, 1.2),
        ("KD", "EMA", 1.9, 8, 0.004, 1.2),
        ("KD", "SWAD", np.nan, 8, 0.004, 1.2),
        ("CE", "last", 1.25, 8, 0.00001, 0.7),
        ("CE", "WAKD", 1.75, 8, 0.00001, 0.7),
    ]
    return pd.DataFrame(rows, columns=["student", "strategy", "rank", "blocks", "p", "difference"])


def test_strategies_stand_at_their_mean_ranks_and_bars_join_what_is_alike(ranks):
    figure, alt = study_figures.critical_difference(ranks)
    kd, ce = figure.axes
    found = {
        line.get_xdata()[0]: (line.get_color(), line.get_marker()) for line in kd.lines if len(line.get_xdata()) == 1
    }
    assert found == {rank: (style.hue(name), "o") for rank, name in ((1.2, "WAKD"), (1.9, "EMA"), (2.9, "last"))}
    texts = [text.get_text().strip() for text in kd.texts]
    assert {"WAKD  1.20", "EMA  1.90", "2.90  last", "critical difference 1.20"} <= set(texts)
    bars = [
        s[:, 0].tolist()
        for c in kd.collections
        for s in c.get_segments()
        if to_hex(c.get_color()[0]) == style.INK[2].lower()
    ]
    assert bars == [pytest.approx([1.2 - 0.04, 1.9 + 0.04]), pytest.approx([1.9 - 0.04, 2.9 + 0.04])]
    scale = next(s for c in kd.collections for s in c.get_segments() if s[0, 1] == s[1, 1] < -1)
    assert scale[:, 0].tolist() == [1, 2.2], "the critical difference is drawn to scale"
    assert kd.get_title(loc="left") == "KD: 8 targets × seeds, Friedman p = 0.004; not ranked: SWAD"
    assert "Friedman p < 0.001" in ce.get_title(loc="left")
    assert "WAKD 1.2, EMA 1.9, last 2.9; critical difference 1.2; not told apart: WAKD and EMA; EMA and last" in alt


def test_strategies_that_all_differ_have_no_bar(ranks):
    _, alt = study_figures.critical_difference(ranks.assign(difference=0.1))
    assert alt.count("not told apart: none") == 2


def test_nothing_to_rank_is_said(ranks):
    figure, alt = study_figures.critical_difference(ranks.iloc[:0])
    assert [t.get_text() for t in figure.axes[0].texts] == ["Too few strategies, targets or seeds to rank."]
    assert "Nothing to rank" in alt


@pytest.fixture
def bins():
    rows = [
        ("KD", "last", "target", 0.6, 0.8, 30, 0.7, 0.5),
        ("KD", "last", "target", 0.8, 1.0, 10, 0.9, 0.8),
        ("KD", "WAKD", "source", 0.2, 0.4, 9, 0.3, 0.3),
        ("KD", "last", "source", 0.8, 1.0, 20, 0.95, 0.95),
        ("KD", "WAKD", "target", 0.6, 0.8, 40, 0.7, 0.7),
    ]
    return pd.DataFrame(rows, columns=["student", "strategy", "role", "low", "high", "n", "confidence", "accuracy"])


def test_reliability_is_accuracy_over_confidence_with_the_unseen_domain_apart(bins):
    errors = {("KD", s, role): 0.0 for s in ("last", "WAKD") for role in ("target", "source")}
    figure, alt = study_figures.reliability(bins, errors | {("KD", "last", "target"): 17.46}, bins=5)
    unseen, source = figure.axes
    assert [a.get_title(loc="left") for a in figure.axes] == ["KD, unseen domain", "KD, source validation"]
    shown = [c.get_offsets().tolist() for c in unseen.collections]
    assert shown == [pytest.approx(np.array([[70, 50], [90, 80]])), pytest.approx(np.array([[70, 70]]))]
    first, second = unseen.collections[0].get_sizes()
    assert first - 4 == pytest.approx(3 * (second - 4)), "area beyond the least goes with the share of images"
    labels = [text.get_text() for text in unseen.get_legend().get_texts()]
    assert labels == ["last: ECE 17.5", "WAKD: ECE 0.0"], "the numbers of the table"
    assert [text.get_text() for text in source.get_legend().get_texts()] == ["last: ECE 0.0", "WAKD: ECE 0.0"]
    joined = [len(line.get_xdata()) for line in source.lines[1:] if line.get_label().startswith("_")]
    assert joined == [1, 0], "nine images are a dot and no line"
    assert "5 bins" in alt and "KD last on unseen domain 17.5 %" in alt


def test_reliability_of_many_students_has_four_beside_each_other(bins):
    many = pd.concat([bins.assign(student=f"s{i}") for i in range(6)], ignore_index=True)
    errors = {key: 1.0 for key in many[["student", "strategy", "role"]].itertuples(index=False, name=None)}
    figure, alt = study_figures.reliability(many, errors)
    shown = [axis.get_title(loc="left") for axis in figure.axes if axis.axison]
    assert sorted(shown) == sorted(f"s{i}, {role}" for i in range(6) for role in ("unseen domain", "source validation"))
    places = {axis.get_title(loc="left"): axis.get_subplotspec() for axis in figure.axes if axis.axison}
    where = {title: (spec.rowspan.start, spec.colspan.start) for title, spec in places.items()}
    assert where["s3, unseen domain"] == (0, 3) and where["s4, unseen domain"] == (2, 0)
    assert where["s5, source validation"] == (3, 1) and len(figure.axes) == 16
    assert all(f"s{i} last on unseen domain" in alt for i in range(6))


# ---- all of them


def test_nothing_is_cut_off_at_the_edge(domains, curves, choices, table, windows, chosen, ranks, bins):
    gains = pd.DataFrame(
        {"label": ["a student with a long name: swad_wakd_repo - best_val"], "pairs": [np.arange(3.0)]}
    ).assign(pair_targets=[["ink", "neon", "photo"]])
    gains = gains.assign(mean=1.0, low=-1.5, high=3.5, n=3, student="")
    for figure, _ in (
        figures.contact_sheet(domains),
        figures.training_curves(curves, choices),
        figures.accuracy_by_domain(table),
        figures.window_map(windows, curves, choices, images=900),
        study_figures.differences(gains, baseline="best_val"),
        study_figures.picks(chosen, steps=100),
        study_figures.critical_difference(ranks.replace("WAKD", "swad_wakd_repo")),
        study_figures.reliability(bins, defaultdict(float)),
    ):
        figure.draw_without_rendering()
        inked = figure.get_tightbbox()  # in inches
        width, height = figure.get_size_inches()
        assert inked.x0 > -0.02 and inked.y0 > -0.02 and inked.x1 < width + 0.02 and inked.y1 < height + 0.02


# ---- lengths of averages


def test_lengths_are_drawn_for_both_roles_with_the_last_iterate_as_a_line():
    rows = [
        {"family": family, "length": length, "domain": domain, "role": role, "accuracy": base + length}
        for family, at in (("last", [0.0]), ("exponential", [0.05, 0.28]), ("power", [0.05, 0.28]))
        for length in at
        for domain, role, base in (("a", "source", 0.5), ("b", "source", 0.6), ("c", "target", 0.3))
    ]
    figure, alt = figures.lengths(pd.DataFrame(rows))
    source, target = (lines(axis) for axis in figure.axes)
    assert [axis.get_title(loc="left") for axis in figure.axes][1].endswith("(oracle)")
    np.testing.assert_allclose(source["power average"], [[0.05, 0.28], [60, 83]])
    np.testing.assert_allclose(target["exponential average"], [[0.05, 0.28], [35, 58]])
    assert source["last iterate"][1] == pytest.approx([55, 55]) and target["last iterate"][1] == pytest.approx([30, 30])
    assert (
        "power on the unseen domain (oracle): best 58.0 at length 0.280, 58.0 as plain mean, last iterate 30.0" in alt
    )
    table = pd.DataFrame(rows)
    table.loc[(table["family"] == "power") & (table["domain"] == "a"), "accuracy"] = np.nan
    assert "power on the source validation: no accuracy; " in figures.lengths(table)[1]


# ---- averages along training


def test_averages_along_training_have_a_ring_where_they_are_as_good_as_the_iterates_get():
    values = {"last": (0.3, 0.6, 0.5), "wakd": (0.2, 0.55, 0.65), "swad": (np.nan, np.nan, 0.4)}
    table = pd.DataFrame(
        [
            {"step": 10 * (k + 1), "strategy": strategy, "domain": domain, "role": role, "accuracy": value}
            for strategy, along in values.items()
            for k, value in enumerate(along)
            for domain, role in (("a", "source"), ("b", "target"))
        ]
    )
    rows = [
        (role, *row)
        for role in ("source", "target")
        for row in (("last", 0.6, 20), ("wakd", 0.6, 30), ("swad", 0.6, None))
    ]
    reached = pd.DataFrame(rows, columns=["role", "strategy", "goal", "step"]).astype({"step": "Int64"})
    figure, alt = figures.along(table, reached)
    left, right = figure.axes
    assert "oracle" in right.get_title(loc="left") and "oracle" not in left.get_title(loc="left")
    lines = {line.get_label(): line for line in left.lines}
    assert [*lines["iterates"].get_ydata()] == [30, 60, 50] and [*lines["wakd"].get_ydata()] == pytest.approx(
        [20, 55, 65]
    )
    (ring,) = [line for line in left.lines if line.get_markersize() == 10]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (30, 65)
    assert (
        "the best of the 3 iterates that were looked at, 60.0, is reached at step 20, by wakd first at step 30, by swad never"
        in alt
    )


def test_a_dollar_in_a_label_is_a_dollar_and_logarithmic_axes_have_numbers(curves, windows, tmp_path):
    label = "a $x_{ $ b"
    choices = {label: averaging.window(curves, begin=40, end=80)}
    for figure, _ in (figures.training_curves(curves, choices), figures.window_map(windows, curves, choices)):
        figure.savefig(tmp_path / "figure.svg")  # mathtext would not parse it
        texts = [text.get_text() for text in figure.findobj(Text)]
        assert any(label in text for text in texts) and not any("mathdefault" in text for text in texts)

"""The explorer without a browser: its numbers are evaluate's, probing writes nothing, and what it saves can be read again."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import ipywidgets
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import Normalize

import wakd_kit as wk
from wakd_kit.averaging import NoWindow
from wakd_kit.cli import main
from wakd_kit.evaluation import geometry
from wakd_kit.explorer import widget as explorer
from wakd_kit.explorer.answers import MEAN, Board, same
from wakd_kit.explorer.drawing import _about, _scale, _ticks, pick, scene
from wakd_kit.explorer.pages import explorable, write_pages
from wakd_kit.landscape import surface as landscape
from wakd_kit.runs.store import RunProblem
from wakd_kit.study.run import NOTEBOOKS

from ..conftest import one_image
from ..offline import offline_problems


def measured(run, choice) -> dict[str, float]:
    """Accuracy per domain as score_choices has it, and the mean over source domains."""
    table = wk.evaluation.score_choices(run, {"it": choice}).set_index("domain")
    sources = table.loc[table["role"] == "source", "accuracy"]
    return {**table["accuracy"], MEAN: sources.mean()}


def near(found, expected) -> bool:
    """Whether accuracies of the explorer's rows are those: of the 80 images left out, and of 16 of each source and their mean."""
    return bool(np.all(np.abs(np.subtract(found, expected)) <= [one_image(80), *[one_image()] * (len(expected) - 1)]))


def files(folder) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def planed(mapped):
    """A run with a loss plane as well, and with averages that were evaluated."""
    wk.evaluate(mapped, wk.choose(mapped, ["last", {"name": "wakd", "label": "W", "begin": 0.5}, "ema"]))
    corners = {"initial": "initial", "last": mapped.choices["last"], "W": mapped.choices["W"]}
    landscape.plane(mapped, corners, size=4, marks={"ema": mapped.choices["ema"]}, workers=1)
    return mapped


def test_every_window_of_the_tables_scores_what_evaluate_says(mapped):
    board = Board(mapped)
    data = scene(board)
    assert board.exact and len(data["windows"]) == 7 * 8 // 2
    for window in ("0-24", "4-12", "20-24", "0-2"):
        expected = measured(mapped, board.window(*map(int, window.split("-"))))
        assert near(data["windows"][window], [expected[row] for row in data["rows"]])
    assert data["rows"] == ["west", MEAN, "north", "east", "south"]
    of_last = measured(mapped, wk.averaging.last(board.curves))
    assert near(data["last"], [of_last[r] for r in data["rows"]])


@pytest.mark.parametrize("name", ["last", "wakd", "uniform", "ema", "lawa", "wise_ft", "bema", "extrapolate"])
def test_what_a_strategy_picks_is_measured_as_evaluate_would(mapped, name):
    board = Board(mapped)
    choice = board.choose({"name": name, "k": 2} if name == "lawa" else name)
    expected = measured(mapped, choice)
    before = pick(board, name, choice)
    assert before["source"] == ("map" if name in ("wakd", "uniform") else "")
    if before["source"] == "map":
        assert near(before["accuracy"], [expected[row] for row in board.rows])
    assert near(*([found[row] for row in board.rows] for found in (board.measure(choice).to_dict(), expected)))
    assert pick(board, name, choice)["source"] == "evaluated"
    assert max(height for _, _, height, _ in before["bars"]) == 1


def test_only_the_plain_mean_of_one_window_has_a_place_on_the_map(copied):
    board = Board(copied)
    assert board.span(board.choose({"name": "wakd", "begin": 8})) == (8, 24)
    assert board.span(board.choose("ema")) is None and board.span(board.choose("last")) is None
    assert board.span(board.choose({"name": "wise_ft", "alpha": 0.0})) is None
    assert board.span(NoWindow("none")) is None


def test_without_a_map_the_proxy_is_looked_at_and_called_one(copied):
    before, board = files(copied.folder), Board(copied)
    assert board.exact is None and scene(board)["windows"] == {} and scene(board)["maps"] == []
    assert board.edges == [0, 2, 4, 8, 12, 16, 20, 24] and board.answers() == []
    board.look_quickly()
    data = scene(board)
    assert data["exact"] is False and "(proxy)" in data["maps"][0]["alt"]
    proxy = wk.window_map_proxy(copied).set_index(["begin", "end"])
    assert data["windows"]["4-12"][0] == pytest.approx(
        proxy.loc[(4, 12), "oracle_target_accuracy_proxy"], abs=one_image(80)
    )
    assert "proxy" in board.answers()[-1]
    assert files(copied.folder) == before


def test_a_coarse_map_restricts_windows_to_its_edges(copied):
    wk.window_map(copied, grid=3, workers=1)
    board = Board(copied)
    assert len(board.edges) == 4 and len(scene(board)["windows"]) == 6
    cells = scene(board)["maps"][0]["cells"]
    assert {(left, right) for left, right, *_ in cells} == set(zip(board.edges, board.edges[1:]))


def test_maps_mark_the_oracle_and_where_strategies_lie(mapped):
    board = Board(mapped)
    source, target = scene(board, {"a": board.window(4, 24), "b": board.window(4, 24), "c": board.choose("last")})[
        "maps"
    ]
    assert [m["oracle"] for m in (source, target)] == [False, True]
    assert [(m["window"], m["label"]) for m in source["marks"]] == [((4, 24), "a, b")]
    best = board.windows.loc[board.windows["west"].idxmax()]
    assert any(
        "best of the oracle" in m["label"] and m["window"] == (best["begin"], best["end"]) for m in target["marks"]
    )
    assert "oracle" in target["alt"] and "oracle" not in source["alt"]


def test_places_on_the_plane_are_those_of_the_parameters(planed):
    board = Board(planed)
    data = scene(board)
    corners = board.plane.corners.set_index("label")
    placed = pick(board, "W", planed.choices["W"])["place"]
    assert placed == pytest.approx([*corners.loc["W", ["x", "y"]], 0], abs=1e-3 * corners["x"].max())
    mark = board.plane.marks.iloc[0]
    expected = [mark["x"], mark["y"], mark["residual"]]
    assert pick(board, "ema", planed.choices["ema"])["place"] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    # distances in the plane and beside it are those of the Gram matrix
    x, y, residual = data["places"]["8-20"]
    segments = len(board.curves)
    origin, point = (geometry.vector(c, segments) for c in ("initial", board.window(8, 20)))
    far = geometry.distance(geometry.gram(planed), origin, point)
    assert np.sqrt(x**2 + y**2 + residual**2) == pytest.approx(far, rel=1e-3)
    assert len(data["plane"]["panels"]) == 2 and data["plane"]["panels"][1]["oracle"]


def test_a_plane_of_other_points_is_drawn_without_a_place_for_averages(mapped):
    curves = mapped.source_curves
    corners = {
        "initial": "initial",
        "mine": wk.averaging.window(curves, begin=4, end=8),
        "last": wk.averaging.last(curves),
    }
    landscape.plane(mapped, corners, size=3, workers=1)
    board = Board(mapped)
    assert board.place([board.window(0, 24)]) is None
    data = scene(board)
    assert data["plane"] is not None and not data["plane"]["placed"] and data["places"] == {}
    # a label of now that stood for other settings then is no corner either
    wk.evaluate(mapped, {"mine": wk.averaging.window(curves, begin=8)})
    assert Board(mapped).place([board.window(0, 24)]) is None


def test_what_evaluate_measured_is_read_and_not_computed_again(mapped, monkeypatch):
    choices = wk.choose(mapped, ["last", "ema", "swad", {"name": "last", "label": "again", "recalibrated": True}])
    table = wk.evaluate(mapped, choices)
    monkeypatch.setattr("wakd_kit.explorer.answers.score_choices", lambda *_: pytest.fail("evaluated again"))
    listed = Board(mapped).table(choices)
    assert listed[["strategy", "domain", "role"]].equals(table[["strategy", "domain", "role"]])
    assert np.allclose(listed["accuracy"], table["accuracy"], equal_nan=True)


def test_the_answer_names_what_source_validation_chose(mapped):
    board = Board(mapped)
    chosen, best, rank = board.answers()
    window = board.windows.loc[board.windows[MEAN].idxmax()]
    assert f"steps {window['begin'] + 1:.0f} to {window['end']:.0f} and scores {window['west']:.1%}" in chosen
    assert f"{board.windows['west'].max():.1%}: an oracle" in best and "proxy" not in rank
    board.windows = board.windows.iloc[-1:]
    one, _ = board.answers()  # nothing to rank
    assert one.startswith("Of 1 window, the one")
    board.windows = Board(mapped).windows.assign(**{MEAN: 1.0})
    unseen = board.windows["west"]
    assert (
        f"({len(unseen)} tie, from {unseen.min():.1%} to {unseen.max():.1%}; this is the first)" in board.answers()[0]
    )
    board.measure = lambda _: {"west": np.nan}
    assert board.answers()[0].endswith("; the last iterate diverged.")


def test_a_mean_of_sources_of_which_one_diverged_is_none(mapped):
    board = Board(mapped)
    table = pd.DataFrame({"domain": board.rows, "accuracy": 0.5, "n": 8}).query("domain != @MEAN")
    table.loc[table["domain"] == board.sources[0], "accuracy"] = np.nan
    assert np.isnan(board._by_row(table)[MEAN])


def test_the_notebook_gives_no_answer_while_the_unseen_domain_is_covered(mapped):
    last, said = nbformat.read(NOTEBOOKS / "10_explore_averaging.ipynb", as_version=4).cells[-1].source, []
    given = {"show_text": lambda *sentences: said.append(sentences), "explore": SimpleNamespace(board=Board(mapped))}
    for hidden in (True, False):
        exec(last, given | {"p": SimpleNamespace(hidden=hidden)})
    assert "%" not in "".join(said[0]) and said[1] == tuple(Board(mapped).answers())


def test_a_loss_of_zero_or_less_has_no_place_on_a_logarithmic_axis(mapped):
    board = Board(mapped)
    loss = board.curves.train_loss.copy()
    loss[1], loss[3] = -0.5, 0
    board.curves = replace(board.curves, train_loss=loss)
    curve = scene(board)["curves"][0]
    assert len(curve["lines"][0]["points"]) == len(loss) - 2 and curve["limits"][0] > 0
    board.curves = replace(board.curves, train_loss=-loss.clip(0))
    assert "training objective" not in [line["name"] for line in scene(board)["curves"][0]["lines"]]


def test_one_source_is_one_name_and_a_perfect_window_is_not_told_apart_by_nothing(mapped):
    board = Board(mapped)
    board.sources = ["ink"]
    assert "steps on ink, and has never seen west" in _about(board)
    board.sources = ["ink", "photo", "neon"]
    assert "steps on ink, photo and neon, and has" in _about(board)
    board.windows["west"] = 0.99
    board.windows.loc[board.windows.index[0], "west"] = 1.0  # 80 images: 0.99 is less than an image away
    board.sources = Board(mapped).sources
    assert all(alike for *_, alike in scene(board)["maps"][1]["cells"])
    board.windows[board.rows] = 1.0
    assert scene(board)["low"] == 0.95, "an axis has a length"


# ---- widgets, driven as the browser would


@pytest.fixture
def explored(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return explorer.Explorer(runs)


def move(explored, begin: int, end: int) -> None:
    """What the view sends when a hand has let go of a window."""
    explored.view.pick = {}
    explored.view.window = [begin, end]
    explored.view.asked = f"{explored.view.data['id']}\n{begin}-{end}"


def test_a_window_moved_by_hand_is_answered_exactly_and_leaves_no_trace(explored):
    folder = explored.board.run.folder
    before = files(folder)
    begin, end = 4, 10
    move(explored, begin, end)
    run = explored.board.run
    expected = measured(run, wk.averaging.window(run.source_curves, begin=begin, end=end))
    assert explored.view.answer["key"] == explored.view.asked
    assert explored.view.answer["accuracy"] == pytest.approx(
        [expected[r] for r in explored.board.rows], abs=one_image(7)
    )
    assert explored.strategy.value == explorer.OWN and explored.settings.children == ()
    assert files(folder) == before


def test_strategies_and_their_settings_pick_what_choose_picks(explored):
    run = explored.board.run
    explored.strategy.value = "wakd"
    (slider,) = explored.settings.children
    for begin in slider.options:
        slider.value = begin
        (expected,) = wk.choose(run, [{"name": "wakd", "begin": begin}]).values()
        assert np.array_equal(explored.choice, expected) and explored.view.pick["begin"] == begin
    explored.view.asked = f"{explored.view.data['id']}\n{explored.view.pick['key']}"
    on_target = measured(run, expected)[explored.board.target]
    assert explored.view.answer["accuracy"][0] == pytest.approx(on_target, abs=one_image())


def test_every_strategy_gives_coefficients_or_a_reason(explored):
    for name in explored.strategy.options[1:]:
        explored.strategy.value = name
        assert explored.view.pick["label"] == name
        known = isinstance(explored.choice, wk.averaging.Coefficients)
        assert bool(explored.view.pick.get("problem")) != known
        assert explored.message.value == ""


def test_no_window_is_a_sentence_and_nothing_to_save(explored, tmp_path):
    explored.strategy.value = "swad"
    {c.description: c for c in explored.settings.children}["n_converge"].value = 12
    assert "swad found no window: " in explored.view.pick["problem"]
    explored.view.asked = f"{explored.view.data['id']}\n{explored.view.pick['key']}"
    assert explored.view.answer == {}
    explored.save_average.click()
    assert "nothing to save: swad found no window" in explored.message.value and not list(tmp_path.iterdir())


def test_the_same_window_can_be_taken_again_after_a_strategy(explored):
    begin, end = explored.board.edges[0], explored.board.edges[-1]
    move(explored, begin, end)
    explored.strategy.value = "last"
    move(explored, begin, end)
    assert explored.choice.of == "mean" and explored.strategy.value == explorer.OWN


def test_another_run_is_another_picture(explored):
    first = explored.view.data
    assert [label for label, _ in explored.run.options] == ["east/student", "north/student"]
    explored.run.value = explored.run.options[1][1]
    assert explored.view.data["id"] != first["id"] and explored.board.run.folder == explored.run.value
    assert explored.strategy.value == "wakd" and explored.view.pick["label"] == "wakd"
    curves = wk.load_run(explored.run.value).source_curves
    assert explored.view.data["curves"][0]["lines"][0]["points"][-1][1] == pytest.approx(curves.train_loss[-1])


def test_a_folder_without_runs_is_a_sentence(explored, tmp_path):
    with pytest.raises(RunProblem, match="No recorded run in or below"):
        explorer.Explorer(tmp_path)
    before = explored.view.data
    explored.folder.value = str(tmp_path)
    assert explored.message.value.startswith("No recorded run in or below") and explored.view.data is before
    explored.folder.value = "x" * 300
    assert "is too long for a path" in explored.message.value
    explored.folder.value = str(explored.run.options[0][1])  # a run's own folder
    assert len(explored.run.options) == 1 and explored.message.value == ""


def test_a_run_that_cannot_be_opened_leaves_nothing_of_another_to_look_at_or_save(runs, tmp_path, monkeypatch):
    """A run that left no domain out, as ``wakd pretrain`` records them, one that is damaged, one whose images are gone."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "north" / "student", tmp_path / "runs" / "b_good")
    settings = json.loads((tmp_path / "runs" / "b_good" / "settings.json").read_text())
    moved = {"benchmark": f"folder:{tmp_path}/nowhere"}
    for name, text in {
        "a_pretrained": json.dumps(settings | {"split": settings["split"] | {"target": None}}),
        "c_damaged": "{",
        "d_moved": json.dumps(settings | {"split": settings["split"] | moved}),
    }.items():
        shutil.copytree(tmp_path / "runs" / "b_good", tmp_path / "runs" / name)
        (tmp_path / "runs" / name / "settings.json").write_text(text)
        with pytest.raises(RunProblem, match=f"{name} cannot be opened: "):
            explorer.Explorer(tmp_path / "runs" / name)
    explored = explorer.Explorer(tmp_path / "runs")
    assert explored.run.label == "b_good" and explored.board.run.name == "b_good"  # the first that can be
    controls = (explored.strategy, explored.save_average, explored.save_figures, explored.file, explored.exact_map)
    for label, place in explored.run.options:
        if label != "b_good":
            explored.run.value = place
            assert explored.message.value.startswith(f"{label} cannot be opened: ")
            assert explored.board is None and explored.choice is None and explored.view.data == {}
            assert all(control.disabled for control in controls) and explored.settings.children == ()
            explored.strategy.value = "swad"
            explored.view.asked = f"{tmp_path}\nmap"
            explored.view.window = [0, 4]
            explored.look_exactly()
            for button in (explored.save_average, explored.save_figures):
                button.click()
                assert "No run is open" in explored.message.value
        else:
            explored.run.value = place
            assert explored.board.run.folder == place and not any(control.disabled for control in controls[:4])
            assert explored.view.data["name"] and explored.strategy.value == "wakd"
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}


def test_what_cannot_be_evaluated_any_more_is_said(explored, monkeypatch):
    def gone(*_):
        raise RunProblem("these are other images.")

    monkeypatch.setattr(explored.board, "measure", gone)
    move(explored, 2, 8)
    assert explored.message.value.endswith("cannot be evaluated: these are other images.")
    assert explored.view.answer == {"key": explored.view.asked, "problem": "these are other images."}


def test_images_that_are_gone_are_said_and_what_asked_for_them_can_be_asked_again(runs, tmp_path, monkeypatch):
    def gone(*_, **__):
        raise FileNotFoundError("the images are gone.")

    explored = explorer.Explorer(shutil.copytree(runs / "north" / "student", tmp_path / "run"))
    monkeypatch.setattr(explored.board, "look_exactly", gone)
    explored.exact_map.click()
    assert explored.message.value.endswith("cannot be evaluated: the images are gone.")
    assert not explored.exact_map.disabled
    with pytest.raises(FileNotFoundError):
        explored.look_exactly()
    monkeypatch.setattr("wakd_kit.evaluation.choose.source_score", gone)
    explored.strategy.value = "sma"
    assert explored.view.pick["problem"] == "the images are gone." and explored.message.value == ""


def test_a_file_that_cannot_be_written_is_said_and_a_name_keeps_its_dots(explored, tmp_path):
    (tmp_path / "file").write_text("")
    explored.file.value = str(tmp_path / "file" / "mine")
    for button in (explored.save_average, explored.save_figures):
        button.click()
        assert explored.message.value.startswith("Not written: ")
    for nameless in ("", f"{tmp_path}/"):
        explored.file.value = nameless
        for button in (explored.save_average, explored.save_figures):
            button.click()
            assert explored.message.value.startswith("Not written: save as a file")
    explored.file.value = str(tmp_path / "begin0.5")
    explored.save_average.click()
    assert (tmp_path / "begin0.5.safetensors").is_file()


def test_the_view_asks_for_a_map_and_the_button_computes_the_exact_one(runs, tmp_path):
    folder = shutil.copytree(runs / "north" / "student", tmp_path / "run")
    explored = explorer.Explorer(folder, grid=2)
    assert explored.view.data["exact"] is None and explored.exact_map.description == "Compute 3 windows exactly"
    explored.view.asked = f"{folder}\nmap"
    assert explored.view.data["exact"] is False and not (folder / "window_map.csv").exists()
    explored.exact_map.click()
    assert explored.view.data["exact"] is True and len(wk.load_run(folder).window_map) == 3
    assert explored.exact_map.disabled and "kept with the run" in explored.message.value


def test_a_saved_average_is_loaded_by_build_model(explored, tmp_path):
    explored.strategy.value = "wakd"
    explored.file.value = str(tmp_path / "new" / "mine")
    explored.save_average.click()
    run, file = explored.board.run, tmp_path / "new" / "mine.safetensors"
    spec = run.settings["student"]
    model = wk.build_model(spec["name"], spec["classes"], weights=file, **spec["settings"])
    for name, tensor in run.average(explored.choice).items():
        assert torch.equal(model.state_dict()[name], tensor), name
    card = next(f for f in file.parent.iterdir() if f.suffix == ".json")
    assert run.settings["split"]["target"] in card.read_text() and str(file) in explored.message.value


def test_figures_are_saved_as_png_and_pdf(explored, tmp_path):
    explored.file.value = str(tmp_path / "figures" / "it")
    explored.save_figures.click()
    written = {f.name for f in (tmp_path / "figures").iterdir()}
    assert written == {f"it_{name}.{kind}" for name in ("curves", "accuracy", "map") for kind in ("png", "pdf")}
    assert (tmp_path / "figures" / "it_curves.pdf").read_bytes().startswith(b"%PDF")


def test_every_setting_with_a_control_starts_at_a_value_that_fits(run):
    for name in wk.averaging.strategies:
        for setting, control in explorer.controls(name, run.source_curves).items():
            assert isinstance(control, ipywidgets.ValueWidget) and f"wk-set-{setting}" in control._dom_classes


def test_a_slider_stands_at_what_is_used_whatever_fits_the_run(run):
    for strategy, given in (("lawa", {"k": 25}), ("swad", {"tolerance_ratio": 3.0})):
        ((setting, value),) = given.items()
        assert explorer.controls(strategy, run.source_curves, given)[setting].value == value


def test_sliders_of_what_searches_ask_where_a_hand_lets_go(run):
    for strategy, at_once in (("wakd", True), ("sma", False), ("learned", False)):
        sliders = [
            c for c in explorer.controls(strategy, run.source_curves).values() if c.has_trait("continuous_update")
        ]
        assert sliders and all(slider.continuous_update is at_once for slider in sliders)


def test_a_declared_strategy_that_is_not_registered_here_is_left_out(mapped):
    file = mapped.folder / "settings.json"
    settings = json.loads(file.read_text())
    settings["declare"] += [{"name": "a_plugin_s", "label": "mine"}]
    file.write_text(json.dumps(settings))
    board = Board(wk.load_run(mapped.folder))
    assert "mine" not in board.declared and board.presets()


@pytest.fixture
def named(mapped):
    """A run that declared strategies under labels of its own, and was evaluated with them."""
    file = mapped.folder / "settings.json"
    own = [{"name": "wakd", "label": "WAKD", "begin": 0.5}, {"name": "swad", "label": "SWAD"}]
    own += [{"name": "sma", "label": "SMA", "start": 0.2}, {"name": "ema", "label": "EMA", "decay": 0.8}]
    file.write_text(json.dumps({**json.loads(file.read_text()), "declare": own}))
    (
        mapped.folder / "window_map.json"
    ).unlink()  # which knows that these settings are others than those it was measured with
    wk.evaluate(mapped, wk.choose(mapped, ["last", *own]))
    return mapped


def test_one_name_has_one_window_in_the_widget_on_its_page_and_in_the_scores(named, monkeypatch):
    explored = explorer.Explorer(named.folder)
    assert explored.strategy.value == "WAKD" and explored.view.pick["begin"] == 12
    text = re.search(r'<script type="application/json">(.*?)</script>', explorer.page(named), re.S).group(1)
    monkeypatch.setattr("wakd_kit.evaluation.choose.source_score", lambda *_: pytest.fail("it was searched before"))
    for preset in json.loads(text)["presets"]:
        explored.strategy.value = preset["label"]
        assert json.loads(json.dumps({**explored.view.pick, "key": ""})) == {**preset, "key": ""}
        if "problem" not in preset:
            assert np.array_equal(explored.choice, named.choices[preset["label"]])
    assert not {"wakd", "swad", "sma", "ema"} & {*explored.strategy.options}, "no second window under the same name"


def test_a_setting_that_is_moved_is_in_the_name(named):
    explored = explorer.Explorer(named.folder)
    (slider,) = explored.settings.children
    assert slider.value == 12
    slider.value = 16
    assert explored.view.pick["label"] == "WAKD (begin=16)" and explored.view.pick["begin"] == 16
    slider.value = 12
    assert explored.view.pick["label"] == "WAKD"
    explored.strategy.value = "EMA"
    assert explored.settings.children[0].value == 0.8


def test_settings_that_differ_are_other_averages_to_the_view(named):
    file = named.folder / "settings.json"
    late = {"name": "wakd", "label": "WAKD late", "begin": 0.75}
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"declare": [*settings["declare"], late]}))
    explored = explorer.Explorer(named.folder)
    keys = []
    for label in ("WAKD", "WAKD late"):
        explored.strategy.value = label
        keys.append(explored.view.pick["key"])
    assert len({*keys}) == 2


def test_a_window_is_that_of_the_settings_beside_it_whatever_was_evaluated_under_its_name(mapped):
    curves = mapped.source_curves
    wk.evaluate(mapped, {"last": wk.averaging.last(curves), "wakd": wk.averaging.wakd(curves, begin=16)})
    explored = explorer.Explorer(mapped.folder)
    (slider,) = explored.settings.children
    assert explored.view.pick["begin"] == slider.value != 16
    assert explored.view.pick["label"] == f"wakd (begin={slider.value})", "the bare name is of the other one"
    slider.value = 16
    assert np.array_equal(explored.choice, mapped.choices["wakd"])


def test_another_average_under_the_name_of_a_strategy_without_settings_is_told_apart(mapped):
    curves = mapped.source_curves
    last = wk.averaging.last(curves)
    wk.evaluate(
        mapped,
        {
            "last": wk.averaging.last(curves, recalibrated=True),
            "uniform": wk.averaging.wakd(curves, begin=16),
            "best_val": last,
        },
    )
    explored = explorer.Explorer(mapped.folder)
    for label in ("last", "uniform"):
        explored.strategy.value = label
        assert explored.view.pick["label"] not in mapped.choices, "the bare name is of the other one"
    assert not same(mapped.choices["last"], last) and same(mapped.choices["best_val"], last)


@pytest.mark.parametrize(
    "strategy, setting", [("wakd", "begin"), ("ema", "begin"), ("power", "begin"), ("swa", "start")]
)
def test_a_slider_stands_where_the_window_begins(run, strategy, setting):
    curves = run.source_curves
    for moment in (*range(21), 0.1, 0.29, 0.45, 0.6, 0.81):
        stood = explorer.controls(strategy, curves, {setting: moment})[setting].value
        chosen = [wk.averaging.strategies.get(strategy)(curves, **{setting: at}) for at in (moment, stood)]
        assert np.array_equal(*chosen), f"{setting}={moment} stands at {stood}"


def test_windows_that_diverged_have_no_place_on_the_maps(mapped, monkeypatch):
    def drawn(diverged):
        table = mapped.window_map.copy()
        table.loc[diverged(table), [c for c in table if c not in ("begin", "end")]] = np.nan
        monkeypatch.setattr(type(mapped), "window_map", table)
        board = Board(mapped)
        return board, scene(board)

    board, data = drawn(lambda table: table["end"] == 24)
    assert board.edges[-1] == 24 and len(data["windows"]) == 6 * 7 // 2
    assert all("000000" not in cell[4] for m in data["maps"] for cell in m["cells"]) and board.answers()
    assert board.look_up(board.window(0, 24)) == (None, "")
    board, data = drawn(lambda table: table["end"] > 0)
    assert board.exact and data["windows"] == {} and data["maps"] == [] and board.answers() == []
    assert "no window map" not in explorer.page(mapped)


def test_a_window_of_one_s_own_begins_as_what_was_shown_and_figures_are_called_as_the_view_is(named, monkeypatch):
    explored, drawn = explorer.Explorer(named.folder), []
    monkeypatch.setattr(explorer, "save_figures", lambda board, choices, stem: drawn.append(choices) or [])
    explored.settings.children[0].value = 16
    explored.save_figures.click()
    explored.strategy.value = "EMA"
    explored.strategy.value = explorer.OWN
    assert explored.view.window == [0, 24] and explored.view.pick == {}
    assert np.array_equal(explored.choice, explored.board.window(0, 24))
    explored.save_figures.click()
    assert [list(choices) for choices in drawn] == [["WAKD (begin=16)"], [explorer.OWN]]
    explored.strategy.value = "last"
    explored.strategy.value = explorer.OWN
    assert explored.view.window == [20, 24], "a window has edges of segments"


def test_a_loss_that_was_declared_and_not_recorded_is_a_reason(named):
    file = named.folder / "settings.json"
    own = [{"name": "swad", "label": "SWAD (WAKD repo)", "loss": "val_kd_loss"}]
    file.write_text(json.dumps({**json.loads(file.read_text()), "declare": own}))
    assert wk.load_run(named.folder).source_curves.val_kd_loss is None
    explored = explorer.Explorer(named.folder)
    explored.strategy.value = "SWAD (WAKD repo)"
    by_name = {control.description: control for control in explored.settings.children}
    assert by_name["loss"].value == "val_kd_loss" and "val_kd_loss" in explored.view.pick["problem"]


def test_the_start_and_signs_of_coefficients_are_told_to_the_view(mapped):
    board = Board(mapped)
    (start, *rest) = pick(board, "bema", board.choose("bema"))["bars"]
    assert start[0] == 0 and start[2] < 0 and start[3] and not any(of_start for *_, of_start in rest)
    assert rest[-1][1] == board.curves.steps and rest[-1][2] > 0


def test_maps_share_the_length_of_their_scale_and_hatch_what_noise_hides(mapped):
    board = Board(mapped)
    maps = scene(board)["maps"]
    assert board.images == {"north": 16, "east": 16, "south": 16, "west": 80}
    for m, name in zip(maps, (MEAN, "west")):
        values = board.windows[name]
        noise = 2 * np.sqrt(values.max() * (1 - values.max()) / (48 if name == MEAN else 80))
        assert [alike for *_, alike in m["cells"]] == (values >= values.max() - noise).tolist()
        assert f"within {100 * noise:.1f} points" in m["noise"]
    lengths = [float(m["scale"]["labels"][1]) - float(m["scale"]["labels"][0].split()[0]) for m in maps]
    assert lengths[0] == pytest.approx(lengths[1], abs=0.11)


# ---- pages


def test_pages_are_written_of_the_runs_that_one_can_be_made_of(named, tmp_path):
    without = shutil.copytree(named.folder, tmp_path / "runs/a-s0/CE", ignore=shutil.ignore_patterns("window_map.*"))
    shutil.copytree(named.folder, tmp_path / "runs" / "a-s0" / "KD")
    assert explorable(named.folder) and not explorable(without) and not explorable(tmp_path)
    pages = write_pages(tmp_path / "runs", tmp_path / "out" / "explorer")
    assert pages == {tmp_path / "runs" / "a-s0" / "KD": tmp_path / "out" / "explorer" / "a-s0-KD.html"}
    same = shutil.copytree(named.folder, tmp_path / "runs" / "a" / "s0-KD")  # the two would share a file
    files = {file.name for file in write_pages(tmp_path / "runs", tmp_path / "both").values()}
    assert files == {file.name for file in (tmp_path / "both").iterdir()} == {"a-s0-KD.html", "a-s0-KD-2.html"}
    shutil.rmtree(same)
    text = (tmp_path / "out" / "explorer" / "a-s0-KD.html").read_text()
    assert "<h1>KD, west left out, seed 0: which part of training should be averaged?</h1>" in text
    assert str(tmp_path) not in text


def test_a_page_carries_its_tables_and_asks_for_nothing(planed, tmp_path):
    assert explorer.page(planed, tmp_path / "page.html") == tmp_path / "page.html"
    fragment = explorer.page(planed)
    assert fragment in (tmp_path / "page.html").read_text()
    assert offline_problems(tmp_path / "page.html") == []
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', fragment, re.S).group(1))
    assert data["windows"] == scene(Board(planed))["windows"] and data["asks"] is False
    assert [p["label"] for p in data["presets"]] == ["last", "W", "ema"]
    for preset in data["presets"]:
        expected = measured(planed, planed.choices[preset["label"]])
        assert preset["accuracy"] == pytest.approx([expected[row] for row in data["rows"]], abs=one_image())
    assert str(planed.folder) not in fragment


def test_a_scale_of_accuracy_begins_at_zero_where_its_width_goes_further():
    weak, strong = (_scale(Normalize(high - 0.36, high)) for high in (0.27, 0.54))
    assert weak["labels"] == ["0.0", "27.0"] and strong["labels"] == ["18.0 or less", "54.0"]
    assert weak["colours"][-1] == strong["colours"][-1] and weak["colours"][0] != strong["colours"][0]


@pytest.mark.parametrize("steps", [1, 7, 40, 310, 600, 610, 50_000])
def test_steps_on_an_axis_are_round_and_apart_and_end_with_the_last(steps):
    ticks = _ticks(steps)
    assert ticks[0] == 0 and ticks[-1] == steps and all(tick == int(tick) for tick in ticks)
    assert min(np.diff(ticks)) >= steps / 20


def test_a_page_needs_a_map_and_escapes_names(mapped):
    odd = "</script><!--<script><b>"
    fragment = explorer.page(mapped, choices={odd: wk.averaging.last(mapped.source_curves)})
    text = re.search(r'<script type="application/json">(.*?)</script>', fragment, re.S).group(1)
    assert odd not in fragment and "<" not in text and json.loads(text)["presets"][0]["label"] == odd
    (mapped.folder / "window_map.csv").unlink()
    with pytest.raises(RunProblem, match=r"has no window map, .* call window_map\(run\) first"):
        explorer.page(mapped)


def test_a_strategy_without_a_window_is_a_button_with_its_reason(mapped):
    choices = {"S": NoWindow("swad found no window: too short."), "last": wk.averaging.last(mapped.source_curves)}
    fragment = explorer.page(mapped, choices=choices)
    assert '"problem": "swad found no window: too short."' in fragment


def test_wakd_explore_writes_the_page_of_a_run_and_those_of_a_folder(runs, tmp_path, capsys):
    own = shutil.copytree(runs, tmp_path / "runs")
    assert (
        main(["explore", str(own / "north/student"), "-o", str(tmp_path / "one.html"), "--grid", "2", "--hidden"]) == 0
    )
    assert len(wk.load_run(own / "north/student").window_map) == 3, "it had no map"
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "one.html")
    assert '"hidden": true' in (tmp_path / "one.html").read_text()
    assert main(["explore", str(own), "-o", str(tmp_path / "all")]) == 2
    assert "No evaluated run with a window map in or below" in capsys.readouterr().err
    run = wk.load_run(own / "north/student")
    wk.evaluate(run, wk.choose(run, ["last", "wakd"]))
    assert main(["explore", str(own), "-o", str(tmp_path / "all")]) == 0
    assert [file.name for file in (tmp_path / "all").iterdir()] == ["north-student.html"]

"""The averaging explorer: move a window over a recorded run, and see what averaging it does.

    explorer.Explorer("../runs/explore")      in a notebook: widgets, any strategy with its main settings, exact scores
    explorer.page(run, "explorer.html")       the same view as one file, for people without Python

Both draw with view.js, which answers from tables without asking a kernel. Nothing that is tried here
is written into a run but the window map, and that only by the button that says so.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping
from html import escape, unescape
from pathlib import Path
from types import MappingProxyType

import anywidget
import ipywidgets as widgets
import traitlets

from .. import averaging
from ..averaging import Coefficients, Curves, NoWindow
from ..averaging.choosing import EVALUATIONS
from ..averaging.extent import extent
from ..averaging.spans import step_of
from ..evaluation.export import export
from ..files import made, path_of
from ..plots import one_run as figures
from ..plots import surface as landscape_figures
from ..results.collect import run_folders
from ..runs.run import load_run
from ..runs.store import RunProblem
from .answers import Board, same
from .drawing import pick, scene, values_of
from .pages import STYLE, VIEW, page

__all__ = ["Explorer", "View", "controls", "page", "runs_below", "save_figures"]
OWN = "your own window"


def runs_below(folder: str | Path) -> list[Path]:
    """Folders of finished recordings: the folder itself, or those below it. Raises ``RunProblem`` when there is none."""
    found = [place for place in run_folders(folder) if (place / "curves.csv").is_file()]
    if not found:
        raise RunProblem(f"No recorded run in or below {folder}; train one with 02_distill, or name another folder.")
    return found


class View(anywidget.AnyWidget):
    """The picture. ``window`` is [begin, end] in steps as a hand or a key chose it, ``pick`` what a strategy picked.

    When nothing has moved for a moment it writes into ``asked`` what it shows, and hopes for exact scores as ``answer``.
    """

    _esm = VIEW + "\nexport default { render };\n"
    _css = STYLE
    data = traitlets.Dict().tag(sync=True)
    window = traitlets.List().tag(sync=True)
    pick = traitlets.Dict().tag(sync=True)
    asked = traitlets.Unicode().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)


class Explorer(widgets.VBox):
    """The explorer of all runs in or below a folder: a widget, shown by a notebook cell that ends with it.

    folder  a run's folder, or any folder above runs, such as a study's
    grid    most segments per side of a window map that is computed here, default every stored one
    hidden  whether what looks at the unseen domain is covered until it is asked for: guess first

    ``board`` is the run that is open, the first that can be, ``choice`` the coefficients that are shown, or the reason why
    there are none. Both are None, the picture is empty and the controls are off while the run that is picked cannot be opened.
    Raises ``RunProblem`` when no run in the folder can be opened.
    """

    def __init__(self, folder: str | Path = "../runs", *, grid: int | None = None, hidden: bool = False):
        runs_below(folder)
        self.grid, self.hidden = grid, hidden
        self.board: Board | None = None
        self.choice: Coefficients | NoWindow | None = None
        self._key, self._spec, self._begun = "", {}, {}
        self._controls: dict[str, widgets.Widget] = {}
        wide, fit = widgets.Layout(width="24em"), widgets.Layout(width="auto")
        self.folder = widgets.Text(str(folder), description="Folder", continuous_update=False, layout=wide)
        self.run = widgets.Dropdown(description="Run", layout=wide)
        self.exact_map = widgets.Button(layout=fit)
        self.strategy = widgets.Dropdown(options=[OWN], value=OWN, description="Average", layout=wide)
        self.settings = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap", margin="0 0 0 2em"))
        self.about = widgets.HTML()
        self.view = View()
        self.file = widgets.Text("average", description="Save as", layout=wide)
        self.save_average = widgets.Button(description="Save the average", layout=fit)
        self.save_figures = widgets.Button(description="Save the figures", layout=fit)
        self.message = widgets.HTML()
        super().__init__(
            [
                widgets.HBox([self.folder, self.run, self.exact_map]),
                widgets.HBox([self.strategy, self.settings]),
                self.about,
                self.view,
                widgets.HBox([self.file, self.save_average, self.save_figures]),
                self.message,
            ]
        )
        for name in _NAMED:
            getattr(self, name).add_class(f"wk-{name.replace('_', '-')}")
        self.folder.observe(self._folder_named, "value")
        self.run.observe(self._run_picked, "value")
        self.strategy.observe(self._strategy_picked, "value")
        self.view.observe(self._window_moved, "window")
        self.view.observe(self._asked, "asked")
        self.exact_map.on_click(self._exact_map_wanted)
        self.save_average.on_click(self._average_wanted)
        self.save_figures.on_click(self._figures_wanted)
        self._folder_named()
        if self.board is None:
            raise RunProblem(unescape(self.message.value))

    def _folder_named(self, _=None) -> None:
        try:
            root = path_of(self.folder.value)
            found = runs_below(root)
        except (RunProblem, ValueError, OSError) as problem:  # a name too long, a user who is not there
            self._say(str(problem))
            return
        self.run.value = None
        self.run.options = [(str(place.relative_to(root)) if place != root else place.name, place) for place in found]
        for self.run.value in found:
            if self.board is not None:
                break

    def _run_picked(self, _=None) -> None:
        with self.view.hold_sync():  # the picture and what is picked in it change together
            self._close()  # first: whatever happens next, nothing here is of another run than the one picked
            if self.run.value is None:
                return
            try:
                self.board = Board(load_run(self.run.value))
                self._draw()
            except Exception as problem:
                self._close()
                # the data has moved or changed, a file is damaged, or the run is of an older format; else a fault of the kit's
                if not isinstance(problem, (ValueError, OSError)):
                    raise
                self._say(f"{self.run.label} cannot be opened: {problem}")
                return
            for control in self._of_a_run:
                control.disabled = False
            self._say("")
            self.strategy.options = [OWN, *self._named]
            self.strategy.value = next((label for label, spec in self._named.items() if spec["name"] == "wakd"), "last")

    @property
    def _named(self) -> dict[str, dict]:
        """{label: strategy}: those that the run declared under its own labels, then every other with its defaults for this run."""
        declared = self.board.declared
        known = {label.lower() for label in declared}
        rest = (name for name in averaging.strategies if name != "window" and name not in known)
        return declared | {name: {"name": name} for name in rest}

    @property
    def _of_a_run(self) -> list[widgets.Widget]:
        return [self.strategy, self.file, self.save_average, self.save_figures]

    def _close(self) -> None:
        """No run is open: an empty picture, nothing chosen, nothing to press."""
        self.board = self.choice = None
        self.strategy.value = OWN
        self._key, self.about.value, self.exact_map.description = "", "", "Window map"
        self.view.window, self.view.pick, self.view.data = [], {}, {}
        for control in (self.exact_map, *self._of_a_run):
            control.disabled = True

    def _draw(self) -> None:
        """What stays while a window moves: drawn for another run, and again when its window map is there."""
        self.view.data = scene(self.board, self.board.presets()) | {
            "id": str(self.board.run.folder),
            "asks": True,
            "hidden": self.hidden,
        }
        finest = len(self.board.run.segments)
        wanted = min(self.grid or finest, finest)
        self.exact_map.disabled = bool(self.board.exact) and len(self.board.edges) > wanted
        self.exact_map.description = (
            "Window map: exact" if self.exact_map.disabled else f"Compute {wanted * (wanted + 1) // 2} windows exactly"
        )

    def _strategy_picked(self, _) -> None:
        label = OWN if self.board is None or not self.strategy.value else self.strategy.value
        self._spec = {} if label == OWN else self._named[label]
        self._controls = controls(self._spec["name"], self.board.curves, self._spec) if self._spec else {}
        self._begun = {setting: control.value for setting, control in self._controls.items()}
        self.settings.children = tuple(self._controls.values())
        self.about.value = escape(_first_line(averaging.strategies.get(self._spec["name"]))) if self._spec else ""
        for control in self._controls.values():
            control.observe(self._settings_moved, "value")
        if self._spec:
            self._settings_moved()
        elif self.board is not None and not self.view.window:
            self._window_wanted()

    def _window_wanted(self) -> None:
        """A window of one's own to begin with: the stretch of what was shown, between edges that a window can have."""
        edges = self.board.edges
        found = isinstance(self.choice, Coefficients)
        begin, end = extent(self.board.curves, self.choice) if found else (edges[0], edges[-1])
        begin = max(edge for edge in edges[:-1] if edge <= begin)
        with self.view.hold_sync():
            self.view.pick = {}
            self.view.window = [begin, min(edge for edge in edges if edge >= end and edge > begin)]

    def _settings_moved(self, _=None) -> None:
        label, name = self.strategy.value, self._spec["name"]
        moved = {n: control.value for n, control in self._controls.items() if control.value != self._begun[n]}
        settings = {key: value for key, value in self._spec.items() if key != "label"} | moved
        searches = inspect.signature(averaging.strategies.get(name)).parameters.keys() & EVALUATIONS.keys()
        # as it was evaluated: the same name has the same window everywhere
        evaluated = None if moved else self.board.run.choices.get(label)
        if evaluated is not None and searches and label in self.board.declared:
            self.choice = evaluated  # as declared: it is not searched again
        else:
            self._say("Trying averages on source validation …" if searches else "")
            self.choice = self.board.choose(settings)
            self._say("")
            if same(evaluated, self.choice):
                self.choice = evaluated
            elif evaluated is not None:
                # another one has the bare name
                moved = {n: control.value for n, control in self._controls.items()} or {"evaluated": "now"}
        label += f" ({', '.join(f'{n}={value}' for n, value in moved.items())})" * bool(moved)
        self._key = f"{label} {settings}"
        with self.view.hold_sync():
            self.view.window = []  # so that the window a hand last chose can be chosen again
            self.view.pick = pick(self.board, label, self.choice) | {"key": self._key}

    def _window_moved(self, _) -> None:
        if self.view.window and self.board is not None:
            begin, end = self.view.window
            self.choice = self.board.window(begin, end)
            self._key = f"{begin}-{end}"
            self.strategy.value = OWN

    def _asked(self, _) -> None:
        """The view has come to rest. Of what it shows it wants the exact scores; without a window map, any map first."""
        place, _, what = self.view.asked.partition("\n")
        if self.board is None or place != str(self.board.run.folder):
            return
        with self._evaluating():
            if what == "map" and self.board.exact is None:
                self._say("Estimating every window: one forward of each segment …")
                self.board.look_quickly(self.grid)
                self._draw()
                self._say("")
            elif what == self._key and isinstance(self.choice, Coefficients):
                accuracy = self.board.measure(self.choice)
                self.view.answer = {"key": self.view.asked, "accuracy": values_of(accuracy)}

    def _exact_map_wanted(self, _) -> None:
        with self._evaluating():
            self.look_exactly()

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Says what cannot be evaluated, and why, also to a view that has asked."""
        try:
            yield
        except (ValueError, OSError) as problem:  # the images have moved or changed since
            self._say(f"{self.run.label} cannot be evaluated: {problem}")
            self.view.answer = {"key": self.view.asked, "problem": str(problem)}

    def look_exactly(self, *, progress: bool = False) -> None:
        """Compute the window map of the open run, unless it is there as fine as the grid asks for; kept with the run."""
        if self.exact_map.disabled:
            return
        self.exact_map.disabled = True
        self._say("Averaging and evaluating every window …")
        start = time.perf_counter()
        try:
            self.board.look_exactly(self.grid, progress=progress)
        except BaseException:  # or interrupted: to be asked for again
            self.exact_map.disabled = False
            self._say("")
            raise
        self._draw()
        self._say(
            f"{len(self.board.run.window_map)} windows in {time.perf_counter() - start:.0f} s, kept with the run."
        )

    def _average_wanted(self, _) -> None:
        if isinstance(self.choice, NoWindow):
            self._say(f"There is nothing to save: {self.choice}")
            return
        file = Path(f"{self.file.value.removesuffix('.safetensors')}.safetensors")
        self._save(lambda: f"{file} and its card {export(self.board.run, self.choice, path_of(file))}")

    def _figures_wanted(self, _) -> None:
        choices = {self.view.pick.get("label", OWN): self.choice}
        self._save(lambda: ", ".join(map(str, save_figures(self.board, choices, path_of(self.file.value)))))

    def _save(self, write: Callable[[], str]) -> None:
        """Write something of the run that is open, and say what, or why it could not be written."""
        if self.board is None:
            self._say("No run is open, so there is nothing to save.")
            return
        if not Path(self.file.value).name or self.file.value.endswith(("/", os.sep)):
            self._say(
                f"Not written: save as a file's name without its ending, such as figures/late; got {self.file.value!r}."
            )
            return
        try:
            self._say(f"Written: {write()}.")
        except (ValueError, OSError) as problem:
            self._say(f"Not written: {problem}")

    def _say(self, sentence: str) -> None:
        self.message.value = escape(sentence)


_NAMED = (
    *("folder", "run", "exact_map", "strategy", "settings", "view"),
    *("file", "save_average", "save_figures", "message"),
)


def _first_line(function: Callable) -> str:
    return function.__doc__.splitlines()[0].replace("``", "")


def controls(strategy: str, curves: Curves, given: Mapping = MappingProxyType({})) -> dict[str, widgets.Widget]:
    """A control for each setting of a strategy that has one, at what is given or fits the run; the others keep their defaults."""
    own = {n: value for n, value in given.items() if value is not None}  # none is what fits the run
    begun = {n: own.get(n, default) for n, default in averaging.settings_of(strategy, curves.steps).items()}
    controls = {n: _control(n, value, curves) for n, value in begun.items()}
    if EVALUATIONS.keys() & inspect.signature(averaging.strategies.get(strategy)).parameters.keys():
        for control in controls.values():  # a search takes seconds: it begins where a hand lets go
            if control is not None and control.has_trait("continuous_update"):
                control.continuous_update = False
    return {name: control.add_class(f"wk-set-{name}") for name, control in controls.items() if control is not None}


def _control(name: str, default: object, curves: Curves) -> widgets.Widget | None:
    style = {"description": name, "style": {"description_width": "initial"}}
    if name in ("begin", "start"):
        steps = [0, *curves.ends[:-1].tolist()]  # whole segments: no moment is moved to the next edge
        asked = step_of(curves, default, name)  # which lies at an edge or is moved to the next, as strategies do
        return widgets.SelectionSlider(
            options=steps, value=min((s for s in steps if s >= asked), default=steps[-1]), **style
        )
    if name == "decay":
        return widgets.SelectionSlider(options=sorted({*DECAYS, default}), value=default, **style)
    if name in STEERING:
        recorded = [n for n in STEERING[name] if getattr(curves, n) is not None]
        # what was declared and not recorded is a choice as well, and says so
        return widgets.Dropdown(options=[*dict.fromkeys([*recorded, default])], value=default, **style)
    if name in COUNTS:
        return widgets.IntSlider(default, 1, max(COUNTS[name], default), **style)
    if name in SHARES:
        return widgets.FloatSlider(default, min=0, max=max(SHARES[name], default), step=0.05, **style)
    return widgets.Checkbox(default, **style) if isinstance(default, bool) else None


DECAYS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
LOSSES = ("val_loss", "val_loss_pooled", "val_kd_loss")
STEERING = {"loss": LOSSES, "by": ("val_accuracy", *LOSSES)}
COUNTS = {"n_converge": 12, "n_tolerance": 20, "k": 30, "patience": 30}
SHARES = {"tolerance_ratio": 2.0, "alpha": 1.0}


def save_figures(board: Board, choices: Mapping[str, Coefficients | NoWindow], stem: Path) -> list[Path]:
    """Write figures of these choices as PNG and PDF: curves with coefficients, accuracy per domain, and the window map and
    the loss plane where they are there.

    Files are ``<stem>_curves.png`` and so on; accuracies are evaluated exactly, and the last iterate stands beside them.
    """
    compared = {"last": averaging.last(board.curves), **choices}
    drawn = {
        "curves": figures.training_curves(board.curves, choices),
        "accuracy": figures.accuracy_by_domain(board.table(compared)),
    }
    if board.exact:
        drawn["map"] = figures.window_map(board.run.window_map, board.curves, choices)
    if board.plane is not None:
        drawn["plane"] = landscape_figures.plane(board.plane)
    made(stem.parent, "place for the figures")
    written = [stem.with_name(f"{stem.name}_{name}{suffix}") for name in drawn for suffix in (".png", ".pdf")]
    for file in written:
        drawn[file.stem.removeprefix(f"{stem.name}_")][0].savefig(file, dpi=144, bbox_inches="tight")
    return written

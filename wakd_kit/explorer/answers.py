"""What the averaging explorer knows of one run, as tables: curves, every window's accuracy, places on the loss plane.

Nothing here draws and nothing writes into the run but ``look_exactly``, which keeps the window map as ``window_map`` does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .. import averaging
from ..averaging import Coefficients, NoWindow, average_of
from ..averaging.curves import noted
from ..averaging.extent import plain_window
from ..evaluation import geometry
from ..evaluation.choose import Chooser
from ..evaluation.scores import score_choices
from ..evaluation.windows import window_map, window_map_proxy
from ..landscape import surface as landscape
from ..runs.run import Run
from ..runs.settings import as_declared

MEAN = "mean of sources"
CURVES_ONLY = ("last", "best_val", "wakd", "swad", "ema")


class Board:
    """One recorded run, ready to be asked about any average of it.

    windows  one row per window: ``begin, end`` (steps, iterates begin < i <= end), then accuracy per name in ``rows``;
             empty until there is a window map; those that diverged are left out
    exact    whether ``windows`` is of the exact map; False for the proxy, None when there is neither
    images   {domain: how many images its accuracy is of}, once anything is evaluated
    """

    def __init__(self, run: Run):
        self.run = run
        self.curves = run.source_curves
        self.target = run.settings["split"]["target"]
        if self.target is None:
            raise ValueError("The explorer shows an unseen domain beside source validation; this run left none out.")
        if "targets" in run.settings["split"]:
            raise ValueError(f"The explorer shows one unseen domain; this run left several out at once: {self.target}.")
        self.sources = list(run.settings["split"]["sources"])
        self._measured: dict[tuple, pd.Series] = {}
        self.images: dict[str, int] = {}
        self._choose = Chooser(run)
        self._recorded()
        self._take(run.window_map, exact=True)

    @property
    def rows(self) -> list[str]:
        """What accuracies are listed for: the unseen domain, the mean of the source domains, each source domain."""
        return [self.target, MEAN, *self.sources]

    @property
    def edges(self) -> list[int]:
        """Steps at which a window may begin or end, 0 and the last step among them."""
        return [int(edge) for edge in self._mapped] or [0, *self.run.segments.edges.tolist()]

    def look_quickly(self, grid: int | None = None) -> None:
        """Fill ``windows`` by proxy: one forward per segment. For looking at while there is no exact map."""
        self._take(window_map_proxy(self.run, grid=grid), exact=False)

    def look_exactly(self, grid: int | None = None, *, progress: bool = False) -> None:
        """Fill ``windows`` exactly; the map is kept with the run."""
        self._take(window_map(self.run, grid=grid, progress=progress), exact=True)

    def _take(self, table: pd.DataFrame, *, exact: bool) -> None:
        table = table.rename(columns=lambda name: re.sub(r"^(val_accuracy|oracle_target_accuracy)_proxy", r"\1", name))
        names = {"oracle_target_accuracy": self.target, "val_accuracy": MEAN}
        names |= {f"val_accuracy/{domain}": domain for domain in self.sources}
        table = table.rename(columns=names).reindex(columns=["begin", "end", *self.rows])
        table = table.astype({"begin": int, "end": int})
        self._mapped = sorted({*table["begin"], *table["end"]})
        self.windows = table.dropna(subset=[MEAN, self.target])  # averages that diverged have no accuracy
        self.exact = exact if len(table) else None

    def window(self, begin: int, end: int) -> Coefficients:
        """The plain mean of the iterates after step ``begin`` up to step ``end``."""
        return averaging.window(self.curves, begin=int(begin), end=int(end))

    def choose(self, wanted: str | Mapping) -> Coefficients | NoWindow:
        """What a strategy picks on this run. Settings that do not fit it, and images that are gone, are reasons like any other that
        there is none.

        A strategy that tries candidates evaluates them on source validation; what was tried once is not tried again.
        """
        try:
            (choice,) = self._choose([wanted]).values()
        except (ValueError, OSError) as problem:
            return NoWindow(str(problem))
        return choice

    def span(self, choice: Coefficients | NoWindow) -> tuple[int, int] | None:
        """(begin, end) in steps when a choice is the plain mean of all iterates between them; None for any other."""
        return plain_window(self.curves, choice)

    def look_up(self, choice: Coefficients | NoWindow) -> tuple[pd.Series | None, str]:
        """Accuracy per name in ``rows`` without evaluating anything, and where it is from.

        "evaluated" before, the window "map", its "proxy"; (None, "") when nobody knows.
        """
        if isinstance(choice, NoWindow):
            return None, ""
        if average_of(choice) in self._measured:
            return self._measured[average_of(choice)], "evaluated"
        known, span = self.windows.set_index(["begin", "end"]), self.span(choice)
        return (known.loc[span], "map" if self.exact else "proxy") if span in known.index else (None, "")

    def measure(self, choice: Coefficients) -> pd.Series:
        """Accuracy per name in ``rows``, the numbers of ``evaluate``: read from the run, or evaluated now. Not written."""
        key = average_of(choice)
        if key not in self._measured:
            self._measured[key] = self._by_row(score_choices(self.run, {"choice": choice}))
        return self._measured[key]

    def table(self, choices: Mapping[str, Coefficients | NoWindow]) -> pd.DataFrame:
        """``strategy, domain, role, accuracy, note`` of several averages, measured, as ``evaluate`` lists them."""
        rows = []
        for label, choice in choices.items():
            found = isinstance(choice, Coefficients)
            note, accuracy = (choice.note, self.measure(choice)) if found else (str(choice), {})
            for domain in (*self.sources, self.target):
                row = {"strategy": label, "domain": domain, "role": "target" if domain == self.target else "source"}
                value = accuracy.get(domain, np.nan)
                rows.append(row | {"accuracy": value, "note": noted(note, value) if domain in accuracy else note})
        return pd.DataFrame(rows)

    def _recorded(self) -> None:
        """What ``evaluate`` has measured on this run before."""
        scores = self.run.scores
        for label, choice in self.run.choices.items():
            own = scores[scores["strategy"] == label]
            if isinstance(choice, Coefficients) and len(own):  # none where evaluating it was killed
                self._measured[average_of(choice)] = self._by_row(own)

    def _by_row(self, table: pd.DataFrame) -> pd.Series:
        self.images |= dict(zip(table["domain"], table["n"].astype(int)))
        accuracy = table.set_index("domain")["accuracy"]
        return pd.concat([accuracy, pd.Series({MEAN: accuracy[self.sources].mean(skipna=False)})])[self.rows]

    @functools.cached_property
    def plane(self) -> landscape.Plane | None:
        """The loss plane that was computed for this run: the one called "plane", else the first by name; None for none."""
        names = landscape.names(self.run)
        return landscape.load(self.run, "plane" if "plane" in names else names[0]) if names else None

    def place(self, choices: Sequence[Coefficients]) -> np.ndarray | None:
        """Where averages lie on the plane, (n, 3): x, y and the distance from it, from inner products of segments alone.

        None where that cannot be said: without a plane, or when its corners are no points of this run.
        """
        if self._corners is None:
            return None
        gram, segments = geometry.gram(self.run), len(self.curves)
        points, residuals = geometry.project(
            gram, [geometry.vector(c, segments) for c in choices], [geometry.vector(c, segments) for c in self._corners]
        )
        return np.column_stack([points, residuals])

    @functools.cached_property
    def _corners(self) -> list | None:
        """The plane's corners as coefficients: it keeps their labels, and where they must be."""
        if self.plane is None:
            return None
        ends = self.curves.ends
        named = {f"step {end}": Coefficients(ends == end, of="end") for end in ends}
        named |= {"initial": "initial", **self.presets()}
        corners = [named.get(label) for label in self.plane.corners["label"]]
        if any(corner is None or isinstance(corner, NoWindow) for corner in corners):
            return None
        segments = len(self.curves)
        gram, vectors = geometry.gram(self.run), [geometry.vector(c, segments) for c in corners]
        found, _ = geometry.project(gram, vectors, vectors)
        # a label may have stood for other settings when the plane was computed
        same = np.allclose(found, self.plane.corners[["x", "y"]], atol=1e-3 * np.abs(found).max())
        return corners if same else None

    @property
    def declared(self) -> dict[str, dict]:
        """{label: strategy with its settings} that this run declared when it was recorded: its own names for averages. A strategy
        that is not registered here, a plugin's, is left out."""
        known = [spec for spec in self.run.settings.get("declare", []) if spec["name"] in averaging.strategies]
        specs = [as_declared(self.run.settings, spec) for spec in known]
        return dict(zip(averaging.labels_of(specs), specs, strict=True))

    def presets(self) -> dict[str, Coefficients | NoWindow]:
        """What is offered by name, at no cost: what was evaluated on the run, under its labels there; on a run that was not, what
        strategies that only read curves pick, those that it declared under its labels."""
        if self.run.choices:
            return dict(self.run.choices)
        own = {label: spec for label, spec in self.declared.items() if spec["name"] in CURVES_ONLY}
        known = {spec["name"] for spec in own.values()}
        return {name: self.choose(name) for name in CURVES_ONLY if name not in known} | {
            label: self.choose(spec) for label, spec in own.items()
        }

    def answers(self) -> list[str]:
        """What the window map says of choosing by source validation, in sentences for a reader; empty without a map."""
        if not len(self.windows):
            return []
        chosen, best = (self.windows.loc[self.windows[row].idxmax()] for row in (MEAN, self.target))
        equal = self.windows.loc[self.windows[MEAN] == chosen[MEAN], self.target]
        tied = f" ({len(equal)} tie, from {equal.min():.1%} to {equal.max():.1%}; this is the first)" * (len(equal) > 1)
        last = self.measure(averaging.last(self.curves))[self.target]
        alone = f"the last iterate alone {last:.1%}" if np.isfinite(last) else "the last iterate diverged"
        told_apart = (self.windows[[MEAN, self.target]].nunique() > 1).all()
        rank = self.windows[MEAN].corr(self.windows[self.target], method="spearman") if told_apart else np.nan
        ranked = f"Source validation ranks the windows as the unseen domain does with a correlation of {rank:.2f} (Spearman)."
        proxy = "These accuracies are a proxy's; compute the exact map before quoting them."
        return [
            f"Of {len(self.windows)} window{'s' * (len(self.windows) > 1)}, the one that source validation likes best "
            f"averages {_steps(chosen)} and scores {chosen[self.target]:.1%} on the unseen domain {self.target}{tied}; {alone}.",
            f"The best window of all, {_steps(best)}, scores {best[self.target]:.1%}: an oracle, since finding it takes "
            "labels of the unseen domain.",
            *([ranked] if np.isfinite(rank) else []),
            *([] if self.exact else [proxy]),
        ]


def _steps(window: pd.Series) -> str:
    return f"steps {window['begin'] + 1:.0f} to {window['end']:.0f}"


def same(one: Coefficients | NoWindow | None, other: Coefficients | NoWindow) -> bool:
    """Whether two choices are one average, or none for one reason."""
    if isinstance(one, Coefficients) and isinstance(other, Coefficients):
        parts = zip([*one.parts.values(), one.initial], [*other.parts.values(), other.initial], strict=True)
        alike = all(np.allclose(a, b, rtol=1e-9, atol=0) for a, b in parts)
        return alike and one.recalibrated == other.recalibrated
    return isinstance(one, NoWindow) and isinstance(other, NoWindow) and str(one) == str(other)

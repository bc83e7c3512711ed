"""How early is an average as good as the run will get? Each strategy's own average at every moment of one recorded run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ..averaging import Coefficients, Curves, NoWindow
from ..averaging import choose as choose_on
from ..checks import explained
from ..data.domains import Split
from ..names import whole_number
from ..runs.settings import as_declared
from .journal import Growing, computed, of_averages, table_file
from .sweep import Sweep

_COLUMNS = {"step": int, "strategy": str, "domain": str, "role": str, "loss": float, "accuracy": float}
ITERATE = "last"  # the line that the others are beside


@explained
def averages_along(
    run,
    split: Split | None = None,
    wanted: Sequence[str | Mapping] = ("wakd", "ema"),
    *,
    count: int = 12,
    workers: int | None = None,
    progress: bool = False,
    name: str = "along",
) -> pd.DataFrame:
    """Accuracy along training of what each strategy would have returned, had the run ended there, beside the iterates ("When,
    Where and Why to Average Weights?", ICML 2025, arXiv 2502.06761, draws such curves).

    wanted  strategies that read curves alone, as ``choose`` takes them; "last", the iterates, comes first in any case
    count   moments at equal distances, the end of the run included; fewer where fewer segments are stored
    name    kept as landscape/<name>.csv in the run's folder; continues after a kill

    Rows: ``step``, ``strategy`` (its label), ``domain``, ``role`` ("source": validation; "target": an oracle, to look at and never
    to choose by), ``loss`` (nats per example), ``accuracy`` (fraction); NaN where a strategy found no window in what there was.
    Defaults of strategies are those of a run of that length. ``steps_to_reach`` reads it. Raises ``ValueError`` for a strategy that
    tries averages, which would be tried anew at every moment.
    """
    sweep = Sweep(run, split, workers=workers)
    iterate, several = {"name": "last", "label": ITERATE}, not isinstance(wanted, (str, Mapping))
    named = [{"name": one} if isinstance(one, str) else one for one in (wanted if several else [wanted])]
    others = [as_declared(run.settings, spec) for spec in named if {"label": ITERATE, **spec} != iterate]
    asked = [iterate, *others]
    moments = _moments(run, whole_number("count", count, 1, "moments of the run"))
    labelled = dict(zip(choose_on(run.source_curves, asked), asked))  # what cannot be at the end cannot be
    points = [(step, *one) for step, segments in moments for one in _until(run.source_curves, segments, labelled)]
    identity = {"kind": "along", "wanted": asked, "steps": [step for step, _ in moments], **sweep.settled}
    identity["averages"] = of_averages(choice for *_, choice in points)

    def missing(table: Growing) -> Iterator[list[dict]]:
        left = points[table.done :]
        found = sweep.scores_of(c for *_, c in left if not isinstance(c, NoWindow))
        for step, label, choice in left:
            scored = {} if isinstance(choice, NoWindow) else next(found)
            about = {"step": step, "strategy": label}
            none = {"loss": np.nan, "accuracy": np.nan}
            yield [{**about, "domain": d, "role": role, **scored.get(d, none)} for d, role in sweep.roles.items()]

    kept = {"points": len(points), "rows_per_point": len(sweep.roles), "progress": progress}
    return computed(table_file(run, name), identity, _COLUMNS, missing, **kept)


def steps_to_reach(table: pd.DataFrame, accuracy: float | None = None) -> pd.DataFrame:
    """The first step at which each strategy is as good as the best of the iterates in the table, by role, domains averaged. One between
    the moments that the table has may have been better.

    table     as ``averages_along`` returns
    accuracy  a fraction to be reached in its place

    Columns: ``role``, ``strategy``, ``goal`` (fraction), ``step`` (of those in the table; missing where it is never reached).
    """
    mean = table.groupby(["role", "strategy", "step"])["accuracy"].agg(lambda a: a.mean(skipna=False))
    rows = []
    for role, strategy in dict.fromkeys(zip(table["role"], table["strategy"])):
        goal = mean[role, ITERATE].max() if accuracy is None else accuracy
        along = mean[role, strategy]
        reached = along.index[along >= goal]
        rows.append({"role": role, "strategy": strategy, "goal": goal, "step": reached[0] if len(reached) else None})
    return pd.DataFrame(rows, columns=["role", "strategy", "goal", "step"]).astype({"step": "Int64"})


def _moments(run, count: int) -> list[tuple[int, int]]:
    """(step, recorded segments until it) of stored segments' ends, at about equal distances."""
    edges = np.asarray(run.segments.edges)
    chosen = edges[np.unique(np.searchsorted(edges, np.linspace(0, edges[-1], count + 1)[1:]))]
    return [(int(step), int(np.searchsorted(run.table["step"], step)) + 1) for step in chosen]


def _until(
    curves: Curves, segments: int, wanted: Mapping[str, object]
) -> Iterator[tuple[str, Coefficients | NoWindow]]:
    """What strategies choose on the first so many segments, over all of them."""
    more = len(curves) - segments
    for label, one in wanted.items():
        try:
            (choice,) = choose_on(curves[:segments], [one]).values()
        except ValueError as early:  # no whole segment to begin with, which the whole run has
            choice = NoWindow(str(early))
        if not isinstance(choice, NoWindow):
            ends = None if choice.ends is None else np.pad(choice.ends, (0, more))
            choice = Coefficients(np.pad(choice, (0, more)), **{**choice.notes, "ends": ends})
        yield label, choice

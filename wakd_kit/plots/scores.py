"""Whether a score before training knew what came of it: ``(figure, alternative text)``."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..statistics import rank_correlation
from .style import empty, ink, marker, styled


@styled
def score_against(table: pd.DataFrame, score: str, *, said: str = "", average: str = "last") -> tuple[Figure, str]:
    """Accuracy on unseen domains after training against a score that only sources entered before it, a panel per unseen domain.

    table    a row for each pair that was trained: ``teacher, student, target, accuracy`` (a fraction) and the score, as
             ``before.table`` gives it; several seeds are rows of their own
    said     what the score is, under the axes;  average  whose accuracy it is
    The rank correlation over the pairs of a panel stands in it; a dash where there are fewer than three.
    """
    table = table.dropna(subset=[score, "accuracy"])
    targets, teachers = list(table["target"].unique()), list(table["teacher"].unique())
    figure = empty(7.2, 3.4)
    axes = figure.subplots(1, max(1, len(targets)), sharey=True, squeeze=False)[0]
    told = []
    for axis, target in zip(axes, targets):
        part = table[table["target"] == target]
        for place, teacher in enumerate(teachers):
            own = part[part["teacher"] == teacher]
            how = {"ms": 5, "color": ink(place), "label": teacher}
            axis.plot(own[score], 100 * own["accuracy"], marker(place), **how)
        pairs = part.groupby(["teacher", "student"])[[score, "accuracy"]].mean()
        rho = rank_correlation(pairs[score], pairs["accuracy"])
        known = "–" if rho != rho else f"{rho:+.2f}"
        axis.set_title(target)
        axis.annotate(
            f"rank correlation\n{known}, n = {len(pairs)}",
            (0.97, 0.03),
            xycoords="axes fraction",
            ha="right",
            fontsize=8,
        )
        axis.grid(color="#E2E2E2", lw=0.6)
        axis.margins(0.1)
        listed = (f"{t}, {s} {100 * r['accuracy']:.1f} at {r[score]:.3g}" for (t, s), r in pairs.iterrows())
        told.append(f"{target}, rank correlation {known} over {len(pairs)} pairs: {'; '.join(listed)}")
    axes[0].set_ylabel(f"accuracy of {average} on the unseen domain, %")
    figure.supxlabel(said or score, fontsize=9, color="#333333")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, max(1, len(labels))))
    return figure, f"Accuracy in % of {average} on unseen domains against {said or score}. {'. '.join(told)}."

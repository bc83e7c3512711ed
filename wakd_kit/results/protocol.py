"""Tables in the form that papers print: mean ± standard error as DomainBed, and the groups of images that are served worst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.domains import Domains
from ..data.mask import parts_of
from ..files import columns_of
from .agreement import Found, printed
from .differences import on_unseen, summary


def domainbed(scores: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on unseen domains in per cent as DomainBed prints it: ``student, strategy``, "mean ± standard error" of each target
    over seeds, and of their average, ``Avg``; a dash where a run of the student has no score, no error where it has one seed; empty
    where all have.

    The error is of trials on the same domains, sd / sqrt(n) with the sd that divides by n (Gulrajani and Lopez-Paz 2021, arXiv
    2007.01434, and its ``collect_results.py``); so it is smaller than ``summary``'s se by sqrt((n - 1) / n), and no interval of a difference.
    """
    rows, unseen = [], on_unseen(scores)
    if unseen["seed"].nunique() < 2:
        return pd.DataFrame()
    for (student, strategy), part in unseen.groupby(["student", "strategy"], sort=False):
        wide = 100 * part.pivot(index="seed", columns="target", values="accuracy")
        seeds = unseen.loc[unseen["student"] == student, "seed"].unique()
        wide = wide.reindex(index=sorted(seeds), columns=sorted(unseen["target"].unique()))
        cells = wide.rename(columns=columns_of(wide)).assign(Avg=wide.mean(axis=1, skipna=False))
        rows.append({"student": student, "strategy": strategy, **{name: _with_error(cells[name]) for name in cells}})
    return pd.DataFrame(rows)


def _with_error(values: pd.Series) -> str:
    mean, error = values.mean(skipna=False), values.std(ddof=0, skipna=False) / np.sqrt(len(values))
    return "–" if np.isnan(mean) else f"{mean:.1f} ± {error:.1f}" if len(values) > 1 else f"{mean:.1f}"


def groups(scores: pd.DataFrame) -> pd.DataFrame:
    """The worst group on each unseen domain, in per cent: ``student, strategy``, its accuracy by target (mean over seeds), their
    ``mean``, ``sd`` and ``n`` as ``agreement.printed`` has them; ``worst domain``: the lowest mean accuracy of an unseen domain; ``source``:
    the worst group of any source validation part, mean over runs. Empty for runs that were scored before groups were looked at.
    """
    if "worst_group" not in scores or scores["worst_group"].isna().all():
        return pd.DataFrame()
    wide, means = printed(scores, "worst_group"), summary(scores)
    domains = [name for name in means if name not in ("student", "strategy", "mean", "sd", "se", "n", "missing")]
    wide.insert(wide.columns.get_loc("n"), "worst domain", means[domains].min(axis=1, skipna=False))
    source = scores[scores["role"] == "source"].groupby(["student", "strategy", "target", "seed"])["worst_group"]
    if len(source):
        of_runs = source.agg(lambda values: values.min(skipna=False)).groupby(["student", "strategy"])
        worst = 100 * of_runs.agg(lambda values: values.mean(skipna=False))
        wide["source"] = [worst.get((row.student, row.strategy), np.nan) for row in wide.itertuples()]
    return wide


def by_part(found: Sequence[Found], domains: Domains, mask: str | Path) -> pd.DataFrame:
    """Accuracy on unseen domains apart for the parts of their images that a file names (``data.mask``), such as in and out of what
    pretraining showed: ``part``, then as ``summary``, and ``images``, how many of that part a run is judged on at least.

    found  what averages predicted, as ``agreement.predictions`` has it. A part that no image of a target is in is NaN there.
    """
    parts = parts_of(domains, mask)
    rows = []
    for one in found:
        for strategy, by_domain in one.by_strategy.items():
            for domain, predicted in by_domain.items():
                for part in sorted({*np.concatenate([*parts.values()])} - {""} if predicted.role == "target" else ()):
                    mine = predicted.correct[parts[domain] == part]
                    about = {
                        "part": part,
                        "student": one.run.name,
                        "strategy": strategy,
                        "target": one.target,
                        "seed": one.seed,
                    }
                    accuracy = mine.mean() if len(mine) and not predicted.diverged else np.nan
                    rows.append({**about, "domain": domain, "role": "target", "accuracy": accuracy, "n": len(mine)})
    if not rows:
        return pd.DataFrame()
    tables = []
    for part, own in pd.DataFrame(rows).groupby("part"):
        images = own.groupby(["student", "strategy", "target", "seed"])["n"].sum().min()
        tables.append(summary(own).drop(columns=["se", "missing"]).assign(images=images))
        tables[-1].insert(0, "part", part)
    return pd.concat(tables, ignore_index=True)

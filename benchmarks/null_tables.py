"""How often do the kit's tests find a difference where there is none? Simulated studies, printed as tables in Markdown.

    python benchmarks/null_tables.py                    # a minute
    python benchmarks/null_tables.py --studies 1000 --tables 500

Accuracies are counts: two strategies of one training share its level (normal about 70 %, sd 3 points over targets and
seeds), differ by chance (normal, ``sd`` points), and are rounded to 1 / images, as accuracies are. Nothing differs on the
mean, so a test at 5 % may reject 5 % of the time and no more. docs/statistics.md has what came of
more of them, and beside it what was counted or computed once in another way.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from wakd_kit.statistics import holm, p_value, rank_methods

TABLES = ((2, 2), (2, 3), (3, 3), (4, 2), (4, 3), (4, 6), (6, 6), (12, 6))  # targets x seeds, strategies
PAIRS = (2, 3, 5)
IMAGES, SPREADS, ROWS = (50, 449, 898), (0.5, 1.5), 15


def accuracies(rng: np.random.Generator, shape: tuple[int, ...], strategies: int, images: int, sd: float) -> np.ndarray:
    """(*shape, strategies) accuracies in per cent on a grid of 100 / images; no strategy is better than another."""
    level = 70 + 3 * rng.normal(size=(*shape, 1))
    own = sd / np.sqrt(2) * rng.normal(size=(*shape, strategies))  # so that differences have this sd
    return np.round((level + own) * images / 100) * 100 / images


def ranked(studies: int, *, images: int = 898, sd: float = 1.5, seed: int = 0, tables=TABLES) -> pd.DataFrame:
    """Friedman's test and Nemenyi's difference on null tables: how many studies of ``studies`` reject at 5 %.

    ``blocks, strategies, friedman, nemenyi`` (fractions), ``se``: standard error of a fraction that is 5 %.
    """
    rows = []
    for blocks, strategies in tables:
        rng = np.random.default_rng([seed, blocks, strategies])
        found = [rank_methods(table) for table in accuracies(rng, (studies, blocks), strategies, images, sd)]
        rows.append(
            {
                "blocks": blocks,
                "strategies": strategies,
                "friedman": np.mean([r.p < 0.05 for r in found]),
                "nemenyi": np.mean([np.ptp(r.mean) >= r.difference for r in found]),
            }
        )
    return pd.DataFrame(rows).assign(se=np.sqrt(0.05 * 0.95 / studies))


def paired(studies: int, *, seed: int = 0, pairs=PAIRS, images=IMAGES, spreads=SPREADS) -> pd.DataFrame:
    """Paired differences in points, ``ROWS`` of them in a table: how many reject at 5 %, and how many tables have one that
    holds with Holm's correction.

    ``pairs, images, sd, t`` (of all rows, whose intervals then leave out zero), ``holm`` (of tables); ``se`` of a fraction
    of tables that is 5 %. Rows without a p reject nothing.
    """
    rows = []
    for n in pairs:
        for many in images:
            for sd in spreads:
                rng = np.random.default_rng([seed, n, many, int(10 * sd)])
                both = accuracies(rng, (studies, ROWS, n), 2, many, sd)
                gains = both[..., 0] - both[..., 1]
                step = 100 / many
                p = np.array([[p_value(row, step=step) for row in table] for table in gains])
                holds = [np.nanmin(holm(row), initial=1) < 0.05 for row in p]
                row = {"pairs": n, "images": many, "sd": sd, "t": (p < 0.05).mean()}
                rows.append(row | {"holm": np.mean(holds)})
    return pd.DataFrame(rows).assign(se=np.sqrt(0.05 * 0.95 / studies))


def markdown(table: pd.DataFrame) -> str:
    shares = {"friedman", "nemenyi", "t", "holm", "se"}
    text = pd.DataFrame({n: [f"{100 * v:.2f} %" if n in shares else f"{v:g}" for v in table[n]] for n in table})
    lines = [text.columns, ["---"] * text.shape[1], *text.to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--studies", type=int, default=10_000, help="of each shape of table")
    options.add_argument("--tables", type=int, default=1_000, help="of paired differences, of each kind")
    given = options.parse_args()
    print(f"Ranks, {given.studies} studies each, 898 images, sd 1.5 points:\n")
    print(markdown(ranked(given.studies)), flush=True)
    print(f"\nPaired differences, {given.tables} tables of {ROWS} rows each:\n")
    print(markdown(paired(given.tables)))


if __name__ == "__main__":
    main()

"""What every strategy averages, where it is from, when it is exact and what it costs: for ``wakd list strategies`` and docs/strategies.md."""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    """One strategy in four phrases, and what its numbers are compared with in the tests.

    averages  what gets weight
    exact     when ``run.average`` makes precisely that, from a recording whose segments may have been merged
    cost      what choosing costs beside reading the record: averages evaluated on source validation
    source    paper, or repository and commit
    tested    "published code", "published update", "slow reference" or "by hand"
    """

    averages: str
    exact: str
    cost: str
    source: str
    tested: str


ALWAYS = "always"
EDGES = "where it begins and ends at edges of stored segments"
ENDS = "where its iterates end stored segments"
EACH = "iterate by iterate where declared; else as segments' means"
STORED = "always: it looks over what is stored"
NONE = "none"
REFERENCE, PUBLISHED, UPDATE, HAND = "slow reference", "published code", "published update", "by hand"

ABOUT = {
    "last": About("the last iterate", ALWAYS, NONE, "no averaging", HAND),
    "best_val": About("one iterate, by its source-validation accuracy or a loss", ENDS, NONE, "usual practice", REFERENCE),
    "uniform": About("every iterate", ALWAYS, NONE, "Polyak and Juditsky 1992", REFERENCE),
    "window": About("every iterate between two steps", EDGES, NONE, "ours, to look at any window", REFERENCE),
    "wakd": About("every iterate after `begin`", EDGES, NONE, "Berezovskiy and Morozov 2023, arXiv 2309.11446", PUBLISHED),
    "ema": About("all, exponentially fading; warm-up as timm", EACH, NONE, "torch 2.15, timm ModelEmaV3", PUBLISHED),
    "power": About("all, the t-th in proportion to t^gamma", EACH, NONE, "Karras et al. 2024, EDM2, arXiv 2312.02696", REFERENCE),
    "annealed": About(
        "all after `begin`, as a decaying rate would have weighed their updates", EACH, NONE, "Tian et al. 2025, WSM, arXiv 2507.17634", REFERENCE,
    ),
    "swa": About("last iterates of every `period` steps from `start`", ENDS, NONE, "Izmailov et al. 2018", REFERENCE),
    "lawa": About("the last `k` last iterates of segments, or of a share of the run", ENDS, NONE, "Kaddour 2022", REFERENCE),
    "wise_ft": About("initial and last parameters, mixed", ALWAYS, NONE, "Wortsman et al. 2022", HAND),
    "bema": About(
        "a moving average, moved on by what it lags behind; signed", "as segments' means; with `every` where its iterates end stored segments",
        NONE, "Block and Zhang 2025, arXiv 2508.00180", UPDATE,
    ),
    "extrapolate": About(
        "beyond the mean of the late part, away from that before; signed", EDGES, NONE, "after Extra-Merge 2026, arXiv 2605.26484", HAND
    ),
    "swad": About("every iterate of the loss valley, once", EDGES, NONE, "Cha et al. 2021, algorithm 1", REFERENCE),
    "swad_published": About("the loss valley, some segments repeated", EDGES, NONE, "khanrc/swad@252190eb", PUBLISHED),
    "swad_wakd_repo": About("the loss valley, from one segment earlier", EDGES, NONE, "vorobeevich/distillation-in-dg@e32e1098", PUBLISHED),
    "eoa_wakd_repo": About(
        "iterates from `begin` to the best raw one", EDGES, NONE, "vorobeevich/distillation-in-dg@e32e1098", PUBLISHED
    ),
    "sma": About("every iterate after `start`, up to the best checkpoint", STORED, "an average per checkpoint", "Arpit et al. 2022", PUBLISHED),
    "iidmax": About(
        "since the best iterate, up to the best average", STORED, "an average per segment", "khanrc/swad@252190eb", PUBLISHED
    ),
    "greedy_soup": About("last iterates that help", STORED, "an average per segment", "Wortsman et al. 2022, mlfoundations/model-soups@d5398f18", PUBLISHED),
    "learned": About(
        "any mixture of segment means, fitted on half of source validation", STORED, "a gradient and two losses per round, at most `rounds`",
        "ours; exponentiated gradient, Kivinen and Warmuth 1997", HAND,
    ),
}  # fmt: skip

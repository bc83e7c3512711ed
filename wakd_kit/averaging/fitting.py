"""Settings that fit the length of a run, where none is given: what papers fixed for thousands of steps is a share of shorter ones.

A default is None in the signature of its strategy and is read off the run here, by the strategy and by whoever records for it.
"""

from __future__ import annotations

PUBLISHED = {"wakd": {"begin": 0.1}, "ema": {"decay": 0.999}, "sma": {"start": 100}}  # and every default until 2026-11
ERMPP = {"start": 600}  # of its 5,000 steps
PAPERS = (
    5_000  # steps of the shortest training that these were published for (DomainBed's; WAKD's students have 50,000)
)


def fitting(strategy: str, steps: int, exact: str | None = None) -> dict[str, int | float]:
    """The settings of a strategy that are read off a run of so many steps, ``{"begin": 0.6}``; empty for other strategies.

    exact  whose code it counts like: then the settings of that code, whatever the length

    wakd  begin: the paper's tenth in runs of 5,000 steps and more; 0.6 in shorter ones, the begin that source validation of a
          split apart chose for the kit's studies of 600 to 1,200 steps (benchmarks/recipe.py), where a tenth is hardly trained
    ema   decay: the last sixth of the run is remembered, 1 - 6 / steps, and never more than 1,000 steps, 0.999
    sma   start: step 100, or a tenth of a run that is shorter than 1,000

    >>> fitting("wakd", 600), fitting("ema", 600), fitting("sma", 600)
    ({'begin': 0.6}, {'decay': 0.99}, {'start': 60})
    >>> all(fitting(name, 50_000) == published for name, published in PUBLISHED.items())
    True
    >>> fitting("sma", 600, "ermpp")
    {'start': 600}
    """
    if exact:
        return ERMPP if exact == "ermpp" else PUBLISHED.get(strategy, {})
    if strategy == "wakd":
        return {"begin": 0.1 if steps >= PAPERS else 0.6}
    if strategy == "ema":
        return {"decay": min(0.999, 1 - 6 / max(steps, 6))}
    if strategy == "sma":
        return {"start": min(100, steps // 10)}
    return {}

"""Averaging strategies: recorded source curves in, one coefficient per segment out. numpy only.

schedule.py   last, uniform, window, wakd, ema, swa, lawa, wise_ft           settled before training
valley.py     best_val, swad, swad_published, swad_wakd_repo, eoa_wakd_repo  read a source-validation curve
search.py     sma, iidmax, greedy_soup, learned                              try averages on source validation
across.py     uniform_soup, diwa, ensemble, check_barrier                    several runs
choosing.py   strategies (the registry), choose(curves, wanted)              several strategies on one run
curves.py     Curves, Coefficients, NoWindow                                 what goes in and what comes out
"""

from .across import check_barrier, diwa, ensemble, uniform_soup
from .choosing import choose, labels_of, settings_of, strategies
from .curves import Coefficients, Curves, NoWindow, as_curves
from .schedule import Recurrence, ema, ema_recurrence, last, lawa, swa, uniform, wakd, window, wise_ft
from .search import greedy_soup, iidmax, learned, sma
from .valley import best_val, eoa_wakd_repo, swad, swad_published, swad_wakd_repo

__all__ = [
    "Coefficients",
    "Curves",
    "NoWindow",
    "Recurrence",
    "as_curves",
    "best_val",
    "check_barrier",
    "choose",
    "diwa",
    "ema",
    "ema_recurrence",
    "ensemble",
    "eoa_wakd_repo",
    "greedy_soup",
    "iidmax",
    "labels_of",
    "last",
    "lawa",
    "learned",
    "settings_of",
    "sma",
    "strategies",
    "swa",
    "swad",
    "swad_published",
    "swad_wakd_repo",
    "uniform",
    "uniform_soup",
    "wakd",
    "window",
    "wise_ft",
]

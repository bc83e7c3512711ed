"""From source curves to an average: ``theta = initial theta_0 + sum_k coefficients[k] theta_k``, over segments k. numpy only.

coefficients = wakd(curves, begin=0.6)            Coefficients: float64, one per segment, >= 0 but for beyond.py, sum 1
theta_k = mean or last iterate of segment k       coefficients.of; ``initial`` is 0 for nearly every strategy

schedule.py   last, uniform, window, wakd, ema, swa, lawa, wise_ft           settled before training
profiles.py   power, annealed; relative_length of any average                the same, by a smooth profile
beyond.py     bema, extrapolate                                              points beyond the iterates, with signs
valley.py     best_val, swad, swad_published, swad_wakd_repo, eoa_wakd_repo  read a source-validation curve
search.py     sma, iidmax, greedy_soup, learned                              try averages on source validation
across.py     uniform_soup, diwa, ensemble, check_barrier                    several runs
choosing.py   strategies (the registry), choose(curves, wanted)              several strategies on one run
curves.py     Curves, Coefficients, NoWindow                                 what goes in and what comes out
fitting.py    fitting(strategy, steps): defaults read off a run's length     begin, decay, start
about.py      ABOUT: source, exactness and cost of every strategy
spans.py      first_after, over_iterates, describe, ...                      what the strategies share
"""

from .across import check_barrier, diwa, ensemble, uniform_soup
from .beyond import bema, extrapolate
from .choosing import choose, labels_of, settings_of, strategies
from .curves import Coefficients, Curves, NoWindow, as_curves
from .fitting import PUBLISHED, fitting
from .profiles import RECURRENCES, annealed, average_of, gamma_of, power, relative_length
from .schedule import Recurrence, ema, ema_recurrence, last, lawa, swa, uniform, wakd, window, wise_ft
from .search import greedy_soup, iidmax, learned, sma
from .spans import first_after, step_of
from .valley import best_val, eoa_wakd_repo, swad, swad_published, swad_wakd_repo

__all__ = [
    "PUBLISHED", "RECURRENCES", "Coefficients", "Curves", "NoWindow", "Recurrence", "annealed", "as_curves",
    "average_of", "bema", "best_val", "check_barrier", "choose", "diwa", "ema", "ema_recurrence", "ensemble", "eoa_wakd_repo",
    "extrapolate", "first_after", "fitting", "gamma_of", "greedy_soup", "iidmax", "labels_of", "last", "lawa", "learned", "power",
    "relative_length", "settings_of", "sma", "step_of", "strategies", "swa", "swad", "swad_published", "swad_wakd_repo",
    "uniform", "uniform_soup", "wakd", "window", "wise_ft",
]  # fmt: skip

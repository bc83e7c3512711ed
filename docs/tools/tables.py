"""What a study measured on the domains that it had not seen, as a table that is kept: ``python docs/tools/tables.py reports/methods ...``.

Writes docs/tables/<study>.csv from the report's scores.csv, a row per run, average and unseen domain; docs/results.md and reports/LOG.md say
what follows from it.
"""

import sys
from pathlib import Path

import pandas as pd

TABLES = Path(__file__).parent.parent / "tables"
KEYS = ["target", "seed", "student", "strategy", "domain", "n"]


def write(report: Path) -> Path:
    """Keep the table of one report; returns its path."""
    scores = pd.read_csv(report / "scores.csv")
    unseen = scores[scores["role"] == "target"]
    measured = [name for name in ("accuracy", "nll", "ece", "worst_group", "group") if name in unseen]
    TABLES.mkdir(exist_ok=True)
    path = TABLES / f"{report.name}.csv"
    unseen[[*KEYS, *measured]].round(6).to_csv(path, index=False)
    return path


if __name__ == "__main__":
    for given in sys.argv[1:]:
        print(write(Path(given)))

"""Sampling that follows the student's gap to its teacher, domain by domain (DDK).

r <- softmax(l_S / l_T)                                     before the first step
r <- smoothing softmax(log r + l_S / l_T) + (1 - smoothing) / domains      at segment ends, ``every`` so many steps
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from ..checks import make
from ..data.batches import SourceBatches
from ..files import Stopped
from .settings import Gap, Settings
from .validate import SourceValidation, scores


def by_gap(gap: np.ndarray, shares: np.ndarray | None = None, *, smoothing: float = 1.0) -> np.ndarray:
    """The shares of domains (sources,) that follow from gaps ``l_S / l_T`` of perplexities, and from the shares until now.

    DDK, Liu et al. 2024, arXiv 2407.16154, equations 1 to 3, in logarithms: with 345 classes ``exp`` of a gap is 3e142.
    """
    weights = gap if shares is None else gap + np.log(np.maximum(shares, 1e-300))
    powers = np.exp(weights - weights.max())
    return smoothing * powers / powers.sum() + (1 - smoothing) / len(gap)


class Shares:
    """Hands a training's batches the shares of their domains: from its rows where it goes on, from the student where it begins.

    A row of curves.csv holds those that its steps were drawn by, as share/<domain>; what follows from its losses is in
    force from the next step on. They change at the first segment end at or after each multiple of ``every`` of the run.
    """

    def __init__(self, settings: Settings, data: SourceBatches, validation: SourceValidation):
        self.data, self.names, self.setting = data, [*validation.examples], make(Gap, settings.sampling)
        self.every = max(1, round(self.setting.every * settings.steps))
        sizes = np.cumsum([len(e) for e in validation.examples.values()])[:-1]
        parts = zip(np.split(np.arange(len(validation.taught)), sizes), validation.examples.values())
        self.taught = np.array([scores(validation.taught[part], e.labels)["nll"] for part, e in parts])
        self.now: np.ndarray | None = None

    def begin(self, rows: Sequence[dict], validation: SourceValidation, student: nn.Module) -> None:
        """Those of every step until now, and of the next."""
        if not rows:
            self._draw(0, by_gap(self._gap(validation(student))))
        begin = 0
        for row in rows:
            self._draw(begin, np.array([row[f"share/{name}"] for name in self.names]))
            begin = row["step"]
        if rows:
            self._follow(rows[-1], rows[-2]["step"] if len(rows) > 1 else 0)

    def close(self, row: dict, begun: int) -> dict[str, float]:
        """Columns of the row of a segment that began after step ``begun``; the next one is drawn by what follows from it."""
        columns = {f"share/{name}": float(share) for name, share in zip(self.names, self.now)}
        self._follow(row, begun)
        return columns

    def _follow(self, row: dict, begun: int) -> None:
        if row["step"] // self.every > begun // self.every:
            self._draw(row["step"], by_gap(self._gap(row), self.now, smoothing=self.setting.smoothing))

    def _gap(self, row: dict) -> np.ndarray:
        """Perplexities of the student over the teacher's, by domain; held where ``exp`` ends."""
        student = np.array([row[f"val_loss/{name}"] for name in self.names])
        if not np.isfinite(student - self.taught).all():
            raise Stopped(
                f"Sampling by gap draws domains by their validation losses, of which one is no number after step {row.get('step', 0)}: lower "
                "learning_rate, look at the teacher, or take another sampling."
            )
        return np.exp(np.minimum(student - self.taught, 700.0))

    def _draw(self, step: int, shares: np.ndarray) -> None:
        self.now = shares
        self.data.share(step, shares)

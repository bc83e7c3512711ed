"""An embedded benchmark of another shift than style: digits whose colour goes with the label, here one way and there the other.

Correlation shift (Arjovsky et al. 2019, arXiv 1907.02893, section 5.2): colour says more of the label than the shape does on the
sources, and the opposite on the domain that papers leave out. Ours are scikit-learn's scans, no scan in two domains, and the share
of images whose colour goes with the label is exact in every class of every domain.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits

from .digits import SIZE, _each, _hsv, _mix, _pose, _stroke


def render_coloured(
    seed: int = 0, agree: Sequence[float] = (0.9, 0.8, 0.1), noise: float = 0.0, renderings: int = 2
) -> dict[str, tuple[np.ndarray, ...]]:
    """A domain for each share in ``agree``: the part of its images whose colour is that of their label, red below 5.

    noise  share of the scans whose label is the other one, so that shapes alone can be right on 1 - noise

    Returns {"agree90": (images (n, 32, 32, 3) uint8, labels (n,), originals (n,), colours (n,))}, arrays as ``render_digits`` has
    them. Raises ``ValueError`` for shares that are none, or twice the same.
    """
    names = [f"agree{100 * share:g}" for share in agree]
    if not all(0 <= share <= 1 for share in (*agree, noise)) or len({*names}) < len(names) or len(names) < 2:
        raise ValueError(
            f"agree lists two or more different shares from 0 to 1, noise is one; got {agree} and {noise}."
        )
    scans = load_digits()
    rng = np.random.default_rng([seed, len(names), 77])
    dealt = np.concatenate([rng.permutation(np.flatnonzero(scans.target == digit)) for digit in range(10)])
    domains = {}
    for index, (name, share) in enumerate(zip(names, agree)):
        rng = np.random.default_rng([seed, index, 77])
        part = np.sort(dealt[index :: len(names)])
        labels = (scans.target[part] >= 5).astype(np.int64)
        labels = np.where(_share_of_each(labels, noise, rng), 1 - labels, labels)
        originals, labels = np.repeat(part, renderings), np.repeat(labels, renderings)
        colours = np.where(_share_of_each(labels, share, rng), labels, 1 - labels)
        pixels = _paint(_pose(scans.images[originals].astype(np.float32) / 16, rng), colours, rng)
        domains[name] = (pixels, labels, originals.astype(np.int64), colours)
    return domains


def _share_of_each(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A mask of so many of each label, rounded."""
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        where = rng.permutation(np.flatnonzero(labels == label))
        mask[where[: round(share * len(where))]] = True
    return mask


def _paint(heights: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strokes of a bright colour, hue within 25 degrees of red or green, on a dark wall of any hue."""
    n = len(heights)
    hue = colours / 3 + rng.uniform(-0.07, 0.07, n)
    pen = _hsv(hue, rng.uniform(0.7, 1, n), rng.uniform(0.6, 1, n))
    wall = _hsv(rng.random(n), rng.uniform(0, 0.4, n), rng.uniform(0, 0.25, n))
    image = _mix(np.broadcast_to(wall, (n, SIZE, SIZE, 3)), pen, _stroke(heights, _each(rng, 0.35, 0.5, n)))
    return np.rint(np.clip(image + 0.03 * rng.standard_normal((n, SIZE, SIZE, 1)), 0, 1) * 255).astype(np.uint8)

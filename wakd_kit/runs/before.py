"""Scores before training: what features, gradients and views of the sources say of teachers and students, in seconds."""

from __future__ import annotations

import numpy as np

from ..statistics import rank_correlation


def parc(features, labels) -> float:
    """How well distances of features rank like distances of classes, -100 to 100; higher is better.

    Pearson distances ``1 - corrcoef`` between images, of their features (n, d), each dimension standardised over the images, and
    of their one-hot labels; Spearman's rank correlation of the two over all pairs, ties averaged, times 100. PARC, Bolya et al. 2021,
    arXiv 2111.06977, as its authors' code without the PCA. A dimension that never changes says nothing, an image whose features are
    all at their mean is at distance 1 from the others. Takes (n, n) of memory: some hundred images are enough.

    Raises ``ValueError`` for fewer than two classes.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    classes = np.unique(labels)
    if len(features) != len(labels) or len(classes) < 2:
        raise ValueError(
            f"parc takes features and labels of the same images, of two classes or more; got {len(features)} features and "
            f"{len(labels)} labels of {len(classes)} classes."
        )
    deviation = features.std(0)
    standard = (features - features.mean(0)) / np.where(deviation > 0, deviation, 1)
    pairs = np.triu_indices(len(labels), 1)
    ours, theirs = (_distances(rows)[pairs] for rows in (standard, labels[:, None] == classes))
    return 100 * float(np.nan_to_num(rank_correlation(ours, theirs)))


def _distances(rows: np.ndarray) -> np.ndarray:
    """``1 - corrcoef`` (n, n) of rows, 1 for one that never changes."""
    centred = rows - rows.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norm > 0, norm, 1)
    return 1 - unit @ unit.T

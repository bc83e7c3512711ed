"""Strategies that read a curve of the raw iterates on source validation: the best iterate, and the loss valleys.

Which curve steers is the setting ``loss``: "val_loss" (cross-entropy, mean over source domains, as SWAD's authors),
"val_loss_pooled" (over pooled examples), "val_kd_loss" (label-free distillation loss, as the WAKD code). A curve
without a valley, or with a NaN before its valley ended, raises ``NoWindow``: an outcome to report, where the
published code silently returns some other model.

Three loss valleys under three names, since published tables call all of them "SWAD": ``swad`` is the algorithm of
the paper, ``swad_published`` what its authors' code does, ``swad_wakd_repo`` what ships with the WAKD paper.

Every segment end is a validation to them, that of a shorter segment at a declared edge or at the end of a run too;
the published codes validate every so many steps and at no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..names import one_of, real_number, whole_number
from .curves import Coefficients, Curves, NoWindow, as_curves
from .spans import describe, ending_at, over_ends, over_iterates, over_segments, starting_at, step_of

VALIDATION = {
    "val_loss": "validation loss",
    "val_loss_pooled": "pooled validation loss",
    "val_kd_loss": "validation distillation loss",
    "val_accuracy": "validation accuracy",
}
TOLERATED = "how far above the valley's loss is tolerated (0.3)"


def best_val(curves: Curves | None = None, *, by: str = "val_accuracy", **series: Any) -> Coefficients:
    """The last iterate of the segment with the best source validation: highest accuracy, or lowest loss. One-hot.

    Ties go to the earliest, as with the strict comparison of DomainBed and the WAKD code.
    """
    curves = as_curves(curves, **series)
    values = curves.series(by)
    one_of("by", by, tuple(VALIDATION))
    best = int(np.argmax(values) if by == "val_accuracy" else np.argmin(values))
    return over_ends(curves, [best], "best_val", f"iterate {curves.ends[best]}, {VALIDATION[by]} {values[best]:.4g}")


def swad(
    curves: Curves | None = None,
    *,
    n_converge: int = 3,
    n_tolerance: int = 6,
    tolerance_ratio: float = 0.3,
    loss: str = "val_loss",
    **series: Any,
) -> Coefficients:
    """The loss valley, clean: one contiguous window, every iterate in it once.

    Algorithm 1 of Cha et al., "SWAD: Domain Generalization by Seeking Flat Minima" (2021), whose optimum patience,
    overfit patience and tolerance rate are ``n_converge``, ``n_tolerance`` and 1 + ``tolerance_ratio``. The window

    - starts at the first segment whose loss is the lowest of itself and the next n_converge - 1 segments;
    - ends before the first n_tolerance segments in a row that all exceed the threshold, (1 + tolerance_ratio) times
      the mean loss of those first n_converge segments, and otherwise with the run. As in the algorithm, tests
      begin at the segment after those, which alone never end it.

    Segments weigh in proportion to their iterates, so the average is the plain mean of all iterates in the window
    whatever the segments' lengths; the published code (``swad_published``) weighs uneven segments alike, repeats
    some, and also extends the window to earlier segments under the threshold.

    Raises ``NoWindow`` when no segment starts a valley: the loss fell to the end, or the run is too short. There the
    published code logs an error and returns the last segment.

    >>> swad(val_loss=[0.9, 0.5, 0.4, 0.4, 0.4, 0.8], n_converge=3, n_tolerance=1).note
    'segments 3-5, iterates 3-5, threshold 0.52'
    """
    curves = as_curves(curves, **series)
    real_number("tolerance_ratio", tolerance_ratio, 0, meaning=TOLERATED)
    losses, start, threshold = _valley("swad", curves, loss, n_converge, n_tolerance, 1 + tolerance_ratio)
    threshold = max(threshold, losses[start])  # the mean of equal losses can round to less than each of them

    end = len(losses) - 1
    for t in range(start + n_converge, len(losses)):
        if losses[max(0, t - n_tolerance + 1) : t + 1].min() > threshold:
            end = t - n_tolerance
            break
    else:
        curves.series(loss)  # raises where training diverged inside the valley
    return over_iterates(curves, start, end, "swad", f", threshold {threshold:.4g}")


def swad_published(
    curves: Curves | None = None,
    *,
    n_converge: int = 3,
    n_tolerance: int = 6,
    tolerance_ratio: float = 0.3,
    loss: str = "val_loss",
    **series: Any,
) -> Coefficients:
    """The loss valley exactly as its authors' code computes it: LossValley of khanrc/swad@252190eb.

    Settings as in that repository; its tolerance_ratio is 0.3, and 0.2 on VLCS. It differs from ``swad`` in that

    - earlier segments under the threshold are added, save the first that qualifies;
    - segments repeat: the head of a queue of n_tolerance segments joins at every validation, so while the queue
      fills (n_tolerance > n_converge and an early valley) the head joins again and again, and the valley's first
      segment is often counted twice;
    - segments weigh alike, however many iterates they hold. The authors validate at step 0, so that their segment 1
      is a single iterate with the weight of a whole segment; a run that should replay this declares an edge there;
    - when the run ends, segments over the threshold are dropped from the tail.

    Training stops there when the valley ends; later segments get 0 here. If the valley ends before anything joined,
    the average is the valley's first segment.

    Raises ``NoWindow`` when no valley starts; the published code logs an error and returns the last segment's mean.
    """
    curves = as_curves(curves, **series)
    real_number("tolerance_ratio", tolerance_ratio, 0, meaning=TOLERATED)
    losses, start, threshold = _valley("swad_published", curves, loss, n_converge, n_tolerance, 1 + tolerance_ratio)
    detected = start + n_converge - 1

    joined = _joined_at_detection(losses, detected, n_converge, n_tolerance, threshold)
    head = max(0, detected - n_tolerance + 1)
    for t in range(detected + 1, len(losses)):
        head = max(0, t - n_tolerance + 1)
        if head < start:
            continue
        if losses[head : t + 1].min() > threshold:
            break
        joined.append(head)
    else:
        curves.series(loss)  # raises where training diverged inside the valley
        # the run ended inside the valley; the head at the last validation is skipped, whether it had joined or not
        for segment in range(head + 1, len(losses)):
            if losses[segment:].min() > threshold:
                break
            joined.append(segment)

    counts = np.bincount(joined or [start], minlength=len(curves)).astype(np.float64)
    used = np.flatnonzero(counts)
    repeats = f", some counted {counts.max():.0f} times" if counts.max() > 1 else ""
    note = f"{describe(curves, used[0], used[-1])}{repeats}, threshold {threshold:.4g}"
    return Coefficients(counts / counts.sum(), strategy="swad_published", note=note)


def swad_wakd_repo(
    curves: Curves | None = None,
    *,
    n_converge: int = 3,
    n_tolerance: int = 6,
    tolerance_ratio: float = 1.3,
    loss: str = "val_loss",
    **series: Any,
) -> Coefficients:
    """The loss valley as shipped with the WAKD paper: src/swad of vorobeevich/distillation-in-dg@e32e1098.

    ``tolerance_ratio`` is the multiplier there, 1.3 where ``swad_published`` says 0.3. When distilling, that code
    steers by the distillation loss pooled over examples: ``loss="val_kd_loss"``. It differs from ``swad_published``:

    - it needs n_converge + 1 segments, and starts one segment before the lowest of n_converge;
    - it joins a segment first and tests the threshold afterwards, so the window usually ends with segments above it;
    - no segment is repeated, no earlier one added, and what is left when the run ends joins untested.

    Segments weigh alike; in that repository all hold the same number of iterates.

    Raises ``NoWindow`` when no valley starts. The published trainer then reports another model under the name SWAD:
    its "EoA" (``eoa_wakd_repo``) if our_swad_begin is set, else the iterate with the best validation accuracy.
    """
    curves = as_curves(curves, **series)
    multiplier = "the multiplier of the valley's loss, 1.3 for swad's 0.3"
    real_number("tolerance_ratio", tolerance_ratio, 1, meaning=multiplier)
    losses, lowest, threshold = _valley(
        "swad_wakd_repo", curves, loss, n_converge, n_tolerance, tolerance_ratio, skip=1
    )
    start, detected = lowest - 1, lowest + n_converge - 1

    end = len(losses) - 1
    first_joining = max(detected + 1, start + n_tolerance - 1)  # segments wait in a queue of n_tolerance - 1
    for joining, t in enumerate(range(first_joining, len(losses)), start=start + 1):
        if losses[max(0, t - n_tolerance + 1) : t + 1].min() > threshold:
            end = joining
            break
    else:
        curves.series(loss)  # raises where training diverged inside the valley
    return over_segments(curves, start, end, "swad_wakd_repo", f", threshold {threshold:.4g}")


def eoa_wakd_repo(
    curves: Curves | None = None, *, begin: int | float = 0.1, frequency: int | None = None, **series: Any
) -> Coefficients:
    """What the WAKD repository reports as "EoA": its average so far, at the best *raw* iterate.

    In vorobeevich/distillation-in-dg@e32e1098 the function that should validate the moving average forwards the
    student itself. So the row "EoA" there is the mean of iterates ``begin`` (inclusive) to s, where s is the
    checkpoint at which the raw iterate had the best source-validation accuracy, ties to the earliest. Kept under
    this name to replay that table; ``sma`` is the method its authors meant.

    begin      a step (int) or a fraction of the run, 5,000 of 50,000 there; compared first, so it has to be a
               segment of its own: edges are declared after steps begin - 1 and begin when training
    frequency  steps between checkpoints, s % frequency == 0 (100 there); None takes every segment end
    """
    curves = as_curves(curves, **series)
    asked = f"eoa_wakd_repo(begin={begin})"
    first = starting_at(curves, step_of(curves, begin, "begin"), asked)
    ending_at(curves, curves.begins[first], asked)
    ends = curves.ends
    if frequency is None:
        compared = list(range(first, len(curves)))
    else:
        whole_number("frequency", frequency, 1, "steps between checkpoints")
        multiples = range((ends[first] // frequency + 1) * frequency, curves.steps + 1, frequency)
        compared = [first, *(ending_at(curves, step, f"{asked} with frequency={frequency}") for step in multiples)]
    accuracy = curves.series("val_accuracy")[compared]
    best = compared[int(np.argmax(accuracy))]
    return over_iterates(curves, first, best, "eoa_wakd_repo", f", best raw accuracy {accuracy.max():.4g}")


def _valley(
    strategy: str, curves: Curves, loss: str, n_converge: int, n_tolerance: int, multiplier: float, skip: int = 0
) -> tuple[np.ndarray, int, float]:
    """A loss of raw iterates on source validation until training diverged; the first segment, from ``skip`` on, that is the
    lowest of n_converge there (ties to it); and the threshold it sets. Other, unrecorded and target names say so."""
    whole_number("n_converge", n_converge, 1, "segments until the loss has converged")
    whole_number("n_tolerance", n_tolerance, 1, "segments over the threshold that end the valley")
    losses = curves.until_diverged(loss)
    one_of("loss", loss, tuple(VALIDATION)[:3])
    for start in range(skip, len(losses) - n_converge + 1):
        ahead = losses[start : start + n_converge]
        if ahead[0] == ahead.min():
            return losses, start, float(np.mean(ahead) * multiplier)
    curves.series(loss)  # raises where training diverged before a valley
    if len(losses) < n_converge + skip:
        raise NoWindow(
            f"{strategy} found no window: {len(losses)} segment{'s' if len(losses) > 1 else ''}, fewer than the "
            f"{n_converge + skip} it needs (n_converge={n_converge}). Record shorter segments, or use wakd(begin=...)."
        )
    lowest = int(np.argmin(losses)) + 1
    where = (
        f"fell to the last of {len(losses)} segments"
        if lowest == len(losses)
        else (
            f"is lowest at segment {lowest} of {len(losses)}, and no segment it may start from is the lowest of {n_converge}"
        )
    )
    raise NoWindow(
        f"{strategy} found no window: {VALIDATION[loss]} {where} "
        f"(n_converge={n_converge}). Train longer, or use wakd(begin=...)."
    )


def _joined_at_detection(
    losses: np.ndarray, detected: int, n_converge: int, n_tolerance: int, threshold: float
) -> list[int]:
    """Segments that the authors' LossValley adds at once when it detects convergence."""
    start = detected - n_converge + 1
    if n_tolerance < n_converge:  # the queue is shorter than the valley's start: what has already left it
        return list(range(start + 1, start + 1 + n_converge - n_tolerance))
    if n_tolerance == n_converge:
        return []
    oldest = max(0, detected - n_tolerance + 1)
    queued = list(range(oldest, min(oldest + n_tolerance - n_converge, detected) + 1))
    over = [position for position, segment in enumerate(queued) if losses[segment] > threshold]
    admissible = over[-1] + 1 if over else 0
    return queued[admissible + 1 :]  # the first admissible one is skipped

"""What a strategy reads and what it returns: source curves in, one coefficient per segment out.

A *segment* is a run of consecutive iterates (parameters after an optimiser step). A run stores, per segment,
the mean of its iterates and its last iterate, and evaluates that last iterate on the source validation splits.
Those evaluations are the curves; nothing in this package has ever seen the target domain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from ..names import did_you_mean

SERIES = ("train_loss", "val_loss", "val_loss_pooled", "val_accuracy", "val_kd_loss")
DIVERGED = "diverged"


class NoWindow(ValueError):
    """A strategy found nothing to average on these curves: an outcome to report, never a reason to fall back."""

    chosen_by, evaluations = "", 0  # as in ``Coefficients``


class NotRecorded(NoWindow):
    """A strategy reads a curve that the run has not, and no other run of its settings would have."""


def noted(note: str, accuracy: float) -> str:
    """The note of an average, which says that it diverged where its accuracy is no number; ``diverged`` reads it."""
    return note if np.isfinite(accuracy) else f"{note}: {DIVERGED}" if note else DIVERGED


def diverged(note: object) -> bool:
    """Whether the note of a row without an accuracy is of an average that diverged, and not of a strategy without a window."""
    return str(note).endswith(DIVERGED)


@dataclass(frozen=True)
class Curves:
    """Source curves of one run, one entry per segment.

    iterates         number of iterates in each segment, (S,) integers >= 1
    train_loss       mean training objective over the segment, nats per example
    val_loss         cross-entropy of the segment's last iterate on source validation, nats per example:
                     the mean over source domains of each domain's mean (domains weigh the same, as SWAD does)
    val_loss_pooled  the same over all source validation examples pooled (large domains weigh more)
    val_accuracy     accuracy of the last iterate, a fraction, domains weighing the same
    val_kd_loss      distillation loss to the teacher, pooled over examples (what steers SWAD in the WAKD code)
    per_domain       {"val_loss": {"ink": (S,) array, ...}, "val_accuracy": {...}}

    A series that was not recorded is None; asking for it says so. The target has no place here.
    """

    iterates: np.ndarray
    train_loss: np.ndarray | None = None
    val_loss: np.ndarray | None = None
    val_loss_pooled: np.ndarray | None = None
    val_accuracy: np.ndarray | None = None
    val_kd_loss: np.ndarray | None = None
    per_domain: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self):
        iterates = np.asarray(self.iterates)
        if iterates.ndim != 1 or len(iterates) == 0:
            raise ValueError("Curves need at least one segment; got none. Has the run recorded anything yet?")
        if not np.all(iterates == np.round(iterates)) or np.any(iterates < 1):
            raise ValueError(f"Every segment holds a whole number of iterates >= 1; got {iterates.tolist()}.")
        object.__setattr__(self, "iterates", _frozen(iterates, np.int64))
        for name in SERIES:
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, self._checked(name, values))
        checked = {
            name: MappingProxyType({domain: self._checked(f"{name}/{domain}", v) for domain, v in by_domain.items()})
            for name, by_domain in self.per_domain.items()
        }
        object.__setattr__(self, "per_domain", MappingProxyType(checked))

    def _checked(self, name: str, values: Any) -> np.ndarray:
        values = _frozen(values, np.float64)
        if values.shape != self.iterates.shape:
            raise ValueError(f"{name} has {values.size} values for {len(self)} segments; give one per segment.")
        return values

    def __len__(self) -> int:
        return len(self.iterates)

    @property
    def ends(self) -> np.ndarray:
        """Step of each segment's last iterate, counted from 1, (S,)."""
        return np.cumsum(self.iterates)

    @property
    def begins(self) -> np.ndarray:
        """Step of each segment's first iterate, counted from 1, (S,)."""
        return self.ends - self.iterates + 1

    @property
    def steps(self) -> int:
        """Length of the run in optimiser steps."""
        return int(self.iterates.sum())

    def series(self, name: str) -> np.ndarray:
        """A steering curve by name, (S,) finite float64.

        ``ValueError`` for an unknown name and for the target; ``NoWindow`` where it was not recorded or is not finite, so
        that a run without a teacher, or a diverged one, is a dash in the table while other strategies have their rows.
        """
        values = self.until_diverged(name)
        if len(values) < len(self):
            first = len(values)
            cut = f", or cut the curves before it with curves[:{first}]" if first else ""
            raise NoWindow(
                f"{name} is {getattr(self, name)[first]} at segment {first + 1} of {len(self)}: training diverged there. "
                f"Lower the learning rate{cut}."
            )
        return values

    def until_diverged(self, name: str) -> np.ndarray:
        """The curve before its first value that is not finite, for strategies that may end before it; raises like ``series``."""
        if "target" in str(name):
            raise ValueError(f"{name!r} asks for the target domain; strategies see source curves only: {_names(self)}.")
        if name not in SERIES:
            raise ValueError(did_you_mean("curve", name, SERIES))
        values = getattr(self, name)
        if values is None:
            raise NotRecorded(f"This run has no {name!r} curve; it has {_names(self)}.")
        finite = np.isfinite(values)
        return values if finite.all() else values[: int(np.argmin(finite))]

    def __getitem__(self, which: slice) -> Curves:
        """The curves of a run that had stopped early: ``curves[:k]``."""
        if not isinstance(which, slice) or which.start not in (None, 0) or which.step not in (None, 1):
            raise TypeError("Curves are cut from the front only, curves[:k]; take one series with curves.series(name).")
        cut = {name: getattr(self, name) for name in SERIES}
        return Curves(
            self.iterates[which],
            **{name: None if values is None else values[which] for name, values in cut.items()},
            per_domain={n: {d: v[which] for d, v in by.items()} for n, by in self.per_domain.items()},
        )


def as_curves(curves: Any = None, **series: Any) -> Curves:
    """``Curves`` from a Curves, a Run (its ``source_curves``), or bare lists: ``as_curves(val_loss=[...])``.

    With bare lists each entry is one segment of one iterate unless ``iterates=[...]`` says otherwise.
    """
    unknown = [name for name in series if name not in (*SERIES, "iterates", "per_domain")]
    if unknown and "target" in unknown[0]:
        raise TypeError(f"{unknown[0]!r} asks for the target domain; strategies see source curves only.")
    if unknown:
        raise TypeError(did_you_mean("setting or series", unknown[0], (*SERIES, "iterates")))
    if curves is not None and series:
        raise TypeError(f"Give a run's curves or bare series, not both; got curves and {', '.join(sorted(series))}.")
    if curves is None:
        lengths = [np.size(values) for name, values in series.items() if name in SERIES and values is not None]
        if "iterates" not in series:
            if not lengths:
                raise TypeError("Nothing to average over: give a run's curves, or bare series such as val_loss=[...].")
            series["iterates"] = np.ones(lengths[0], dtype=np.int64)
        return Curves(**series)
    if isinstance(curves, Curves):
        return curves
    if hasattr(curves, "source_curves"):
        return curves.source_curves
    raise TypeError(f"Expected a run's source curves, got {type(curves).__name__}; use run.source_curves.")


class Coefficients(np.ndarray):
    """What a strategy returns: float64, one per segment, non-negative, summing to 1. A plain array with notes.

    of           "mean": they weigh segment means (WAKD, SWAD, SMA); "end": last iterates (LAWA, soups, last)
    initial      the coefficient of the initial parameters, 0 for nearly every strategy; the sum includes it
    ends         beside coefficients of means, those of last iterates, (segments,); None, as nearly always, for none.
                 The sum includes them
    signed       whether coefficients may be negative: a point beyond the iterates, and no average in the strict sense
    recalibrated  whether BatchNorm of a single iterate is measured again where an average's is, in place of its own statistics
    strategy     name of the function that returned it
    note         a sentence on what was picked, for tables and figures
    chosen_by    what decided, in words, and
    evaluations  how many averages were evaluated on source validation for it; both filled in by ``choose``
    """

    of: str
    initial: float
    ends: np.ndarray | None
    signed: bool
    recalibrated: bool
    strategy: str
    note: str
    chosen_by: str
    evaluations: int

    def __new__(
        cls,
        values,
        *,
        of: str = "mean",
        initial: float = 0.0,
        ends=None,
        signed: bool = False,
        recalibrated: bool = False,
        strategy: str = "",
        note: str = "",
        chosen_by: str = "",
        evaluations: int = 0,
    ):
        array = np.array(values, dtype=np.float64).view(cls)
        if of not in ("mean", "end"):
            raise ValueError(f"Coefficients weigh segment 'mean's or 'end' iterates; got of={of!r}.")
        ends = None if ends is None or not np.any(ends) else _frozen(ends, np.float64)
        if ends is not None and (of != "mean" or ends.shape != array.shape):
            raise ValueError(
                f"Ends stand beside as many coefficients of means; got {ends.size} beside {array.size} of {of}s."
            )
        parts = np.concatenate([np.asarray(array).ravel(), [initial], [] if ends is None else ends])
        total = float(parts.sum())
        if array.ndim != 1 or array.size == 0 or not np.isfinite(total):
            raise ValueError(f"Coefficients are one finite number per segment; got shape {array.shape}, sum {total}.")
        if (parts.min() < 0 and not signed) or abs(total - 1) > 1e-9 * max(1, np.abs(parts).sum()):
            raise ValueError(f"Coefficients are non-negative and sum to 1; got minimum {parts.min()}, sum {total}.")
        array.of, array.initial, array.strategy, array.note = of, float(initial), strategy, note
        array.ends, array.signed, array.recalibrated = ends, bool(signed), bool(recalibrated)
        array.chosen_by, array.evaluations = chosen_by, evaluations
        array.flags.writeable = False
        return array

    def __array_finalize__(self, source):
        # a view or a copy keeps the notes; a number derived from it (a sum, say) is an ordinary numpy value
        for name, default in _NOTES.items():
            setattr(self, name, getattr(source, name, default))

    @property
    def notes(self) -> dict[str, Any]:
        """Everything but the values: ``Coefficients(values, **notes)`` is the same again."""
        return {name: getattr(self, name) for name in _NOTES}

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Coefficients of segment means and of last iterates, ``{"mean": (segments,), "end": (segments,)}``."""
        values, none = np.asarray(self), np.zeros(len(self))
        if self.of == "end":
            return {"mean": none, "end": values}
        return {"mean": values, "end": none if self.ends is None else self.ends}

    @property
    def magnitude(self) -> float:
        """The sum of absolute coefficients: 1 for an average; how often rounding of what is stored counts in another point."""
        return float(sum(np.abs(part).sum() for part in self.parts.values()) + abs(self.initial))

    @property
    def plain(self) -> dict[str, Any]:
        """Values and notes as JSON has them, but for what is as in nearly every choice."""
        rare = {"signed": self.signed, "recalibrated": self.recalibrated}
        notes = {name: value for name, value in self.notes.items() if name not in ("ends", *rare)}
        notes |= {name: True for name, value in rare.items() if value}
        return {"values": self.tolist(), **notes} | ({} if self.ends is None else {"ends": self.ends.tolist()})

    @property
    def identity(self) -> str:
        """What tells this average from others of its run: values and notes as JSON, but for what chose it."""
        return json.dumps({name: v for name, v in self.plain.items() if name not in ("chosen_by", "evaluations")})

    def __reduce__(self):  # numpy's own pickles drop the notes, and with them whether means or ends are weighed
        return _coefficients, (self.tolist(), self.notes)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return array[()] if return_scalar else np.asarray(array)

    def window(self) -> tuple[int, int]:
        """First and last segment (from 0) with a coefficient. Raises ``NoWindow`` for the initial alone."""
        used = np.flatnonzero(sum(np.abs(part) for part in self.parts.values()))
        if not len(used):
            raise NoWindow("Only the initial parameters carry weight: there is no window of segments.")
        return int(used[0]), int(used[-1])


_NOTES = Coefficients.__new__.__kwdefaults__


def _coefficients(values: list, notes: dict[str, Any]) -> Coefficients:
    return Coefficients(values, **notes)


def _frozen(values: Any, dtype: type) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


def _names(curves: Curves) -> str:
    return ", ".join(name for name in SERIES if getattr(curves, name) is not None) or "only iterate counts"

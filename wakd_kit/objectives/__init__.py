"""Training objectives: ``(student, teacher, labels, *, settings) -> scalar``, summed by explicit weight.

``student`` and ``teacher`` are a Tap's ``Output``, or bare logits (n, classes). Losses are means over the batch in nats
per example where a docstring says no other. ``combine`` computes them in float32 or better whatever precision the
models ran in; called one by one, call them outside autocast.

    total = combine([{"name": "ce"}, {"name": "dkd", "weight": 0.5, "schedule": {"end": 0.1}}])
    total.prepare(student(images), teacher(images), steps=600)  # builds what depends on the models
    loss, terms = total(student(images), teacher(images), labels, step=1)

There is no hidden cross-entropy: what is listed is what is trained. Most objectives are plain functions; those with
parameters or state are modules with the same call. ``wakd list objectives`` prints what each needs and where it is
from.
"""

from __future__ import annotations

from .adaptive import CTKD, TAID
from .batchwise import mlkd, mlkd_repo
from .centres import KDpp, proto_kd
from .combining import Combined, Pair, combine
from .contrast import CRD, WCoRDInBatch
from .decoupled import dkd, nkd, wsld
from .features import VID, FitNet, FitNetRaw, VkD, at, simkd
from .heterogeneous import OFA, adaptive_target
from .logits import bckd, ce, kd, margin_mse, mse, rs_kd
from .memory import CRDMemory
from .normalised import dist, ls_dkd, ls_kd
from .registry import Objective, get, objectives
from .relations import CC, cc_paper, nst, pkt, rkd, sp
from .review import ReviewKD
from .schedules import Schedule
from .shift import dho, xded
from .transformed import ttm, wttm
from .transport import sinkd, uld

declare = objectives.declare

__all__ = [
    "CC",
    "CRD",
    "CTKD",
    "OFA",
    "TAID",
    "VID",
    "CRDMemory",
    "Combined",
    "FitNet",
    "FitNetRaw",
    "KDpp",
    "Objective",
    "Pair",
    "ReviewKD",
    "Schedule",
    "VkD",
    "WCoRDInBatch",
    "adaptive_target",
    "at",
    "bckd",
    "cc_paper",
    "ce",
    "combine",
    "declare",
    "dho",
    "dist",
    "dkd",
    "get",
    "kd",
    "ls_dkd",
    "ls_kd",
    "margin_mse",
    "mlkd",
    "mlkd_repo",
    "mse",
    "nkd",
    "nst",
    "objectives",
    "pkt",
    "proto_kd",
    "rkd",
    "rs_kd",
    "simkd",
    "sinkd",
    "sp",
    "ttm",
    "uld",
    "wsld",
    "wttm",
    "xded",
]

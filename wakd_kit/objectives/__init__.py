"""What is taught: ``loss = sum_i weight_i objective_i(student, teacher, labels)``. Filed by kind, as ``wakd list objectives`` has it.

base.py           what objectives read, safely; schedules; the registry, ``declare`` and ``get``
combining.py      combine([{"name", "weight", "schedule", settings...}]) -> Combined: the sum, its terms, its state
logits.py         ce, kd, mse, margin_mse, bckd, rs_kd, dkd, nkd, wsld, ls_kd, ls_dkd, ttm, wttm, uld, ctkd, taid,
                  gated_kd, abkd
batchwise.py      logits over the batch: dist, mlkd, mlkd_repo
controls.py       what is left without an ingredient: cwtm, dkpp, std_ce, label_mse
features.py       fitnet, fitnet_raw, at, vid, vkd, miro, simkd, reviewkd, kdpp, cosine
relations.py      rkd, sp, cc, cc_paper, pkt, nst, prototypes, sinkd
contrast.py       crd, crd_memory, wcord_in_batch
attention.py      between transformers: qkv_relations, a2d
heterogeneous.py  ofa
shift.py          made for unseen domains: xded, dho, vl2v
domains.py        between source domains: moments, coral, vrex, irm, group_dro
partners.py       with networks of their own, trained along: mutual, bi_kd, lfme, ccfp, pesf_kd

``student`` and ``teacher`` are a Tap's ``Output``, or bare logits (n, classes). Losses are means over the batch in nats
per example where a docstring says no other. ``combine`` computes them in float32 or better whatever precision the
models ran in; called one by one, call them outside autocast. No cross-entropy is hidden: what is listed is trained.

    total = combine([{"name": "ce"}, {"name": "dkd", "weight": 0.5, "schedule": {"end": 0.1}}])
    total.prepare(student(images), teacher(images), steps=600)  # builds what depends on the models
    loss, terms = total(student(images), teacher(images), labels, step=1)

Most objectives are plain functions; those with parameters or state are modules with the same call.
"""

from __future__ import annotations

from .attention import A2D, qkv_relations
from .base import Objective, Schedule, get, objectives
from .batchwise import dist, mlkd, mlkd_repo
from .combining import Combined, Pair, combine
from .contrast import CRD, CRDMemory, WCoRDInBatch
from .controls import cwtm, dkpp, label_mse, std_ce
from .domains import GroupDRO, coral, irm, moments, vrex
from .features import MIRO, VID, Cosine, FitNet, FitNetRaw, KDpp, ReviewKD, VkD, at, simkd
from .heterogeneous import OFA, adaptive_target
from .logits import (
    CTKD,
    TAID,
    abkd,
    bckd,
    ce,
    dkd,
    gated_kd,
    kd,
    ls_dkd,
    ls_kd,
    margin_mse,
    mse,
    nkd,
    rs_kd,
    ttm,
    uld,
    wsld,
    wttm,
)
from .partners import CCFP, LFME, PESFKD, BiKD, Mutual
from .relations import CC, cc_paper, nst, pkt, prototypes, rkd, sinkd, sp
from .shift import VL2V, dho, write_embeddings, xded

declare = objectives.declare

__all__ = [
    "A2D", "CC", "CCFP", "CRD", "CTKD", "LFME", "MIRO", "OFA", "PESFKD", "TAID", "VID", "VL2V", "BiKD", "CRDMemory", "Combined",
    "Cosine", "FitNet", "FitNetRaw", "GroupDRO", "KDpp", "Mutual", "Objective", "Pair", "ReviewKD", "Schedule", "VkD",
    "WCoRDInBatch", "abkd", "adaptive_target", "at", "bckd", "cc_paper", "ce", "combine", "coral", "cwtm", "declare", "dho", "dist",
    "dkd", "dkpp", "gated_kd", "get", "irm", "kd", "label_mse", "ls_dkd", "ls_kd", "margin_mse", "mlkd", "mlkd_repo", "moments",
    "mse", "nkd", "nst", "objectives", "pkt", "prototypes", "qkv_relations", "rkd", "rs_kd", "simkd", "sinkd", "sp", "std_ce", "ttm",
    "uld", "vrex", "write_embeddings", "wsld", "wttm", "xded",
]  # fmt: skip

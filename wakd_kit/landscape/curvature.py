"""Curvature: the largest eigenvalues of the loss's Hessian and its trace, by products with vectors (curvlinops)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..data.augment import to_float
from ..data.domains import Rows, Split
from ..evaluation.export import Logits
from ..evaluation.journal import Growing, computed, table_file
from ..evaluation.sweep import Sweep
from ..models.arithmetic import own_draws
from ..names import SEED, whole_number
from ..runs.store import RunProblem

_COLUMNS = {
    "strategy": str,
    "domain": str,
    "role": str,
    "kind": str,
    "rank": int,
    "value": float,
    "standard_error": float,
    "n": int,
}


def curvature(
    run,
    choices: Mapping[str, object],
    split: Split | None = None,
    *,
    top: int = 5,
    probes: int = 20,
    max_images: int = 256,
    seed: int = 0,
    batchnorm: str | None = None,
    progress: bool = False,
    name: str = "curvature",
) -> pd.DataFrame:
    """Largest eigenvalues and trace of the Hessian of the mean cross-entropy, per domain, at each choice.

    choices     {label: point}, see ``landscape`` for what is a point; one without a window has no rows
    top         how many eigenvalues, the largest ones: where a point is no minimum there are negative ones as well
    probes      random sign vectors that estimate the trace (Hutchinson 1989)
    max_images  of each domain at most this many, drawn without their labels, the same for every choice
    seed        of those images, of the probes and of the vector that the eigenvalue search starts from
    batchnorm   policy for running statistics, default the run's; see ``landscape``. The network is in evaluation mode, so
                statistics are constants here: how they move with the parameters is no part of this Hessian
    name        kept as landscape/<name>.csv in the run's folder; continues, or is computed anew, as ``plane``

    Returns ``strategy, domain, role, kind, rank, value, standard_error, n``: per choice and domain ``top`` rows of kind
    "eigenvalue", ranks from 1, and one of kind "trace" with rank 0 and the standard error over probes; n is the number
    of images. Parameters are all, frozen ones too, in float32: products with the Hessian are right to about 1e-6 of its
    largest eigenvalue.

    Raises ``RunProblem`` for a network that cannot be differentiated twice, or that does not fit in memory.
    """
    whole_number("top", top, 1, "eigenvalues")
    whole_number("probes", probes, 2, "random sign vectors")
    whole_number("max_images", max_images, 1, "images of a domain")
    SEED.check("seed", seed)
    file = table_file(run, name)
    sweep = Sweep(run, split, batchnorm=batchnorm, workers=1)
    if top >= sweep.parameters:
        raise ValueError(f"Curvature takes 1 to {sweep.parameters - 1} eigenvalues here; got top={top}.")
    vectors, made_of = sweep.located(choices)
    identity = {"kind": "curvature", "choices": made_of, "top": top, "probes": probes, "max_images": max_images}
    identity |= {"seed": seed, **sweep.settled}
    domains = list(sweep.roles)  # each with probes of its own, so that errors of their traces are independent
    places = [(label, domain) for label in vectors for domain in domains]

    def missing(table: Growing) -> Iterator[list[dict]]:
        for label, domain in places[table.done :]:
            network = Logits(sweep.model_at(vectors[label]))
            data = _batches(sweep.images[domain], sweep.labels[domain].to(sweep.device), max_images, seed)
            try:
                eigenvalues, trace, error = spectrum(
                    network, nn.CrossEntropyLoss(), data, top=top, probes=probes, seed=seed + domains.index(domain)
                )
            except ArpackNoConvergence as problem:
                raise RunProblem(
                    f"The {top} largest eigenvalues of the Hessian around {label} on {domain} did not converge "
                    f"({str(problem).splitlines()[0]}): ask for fewer (top), or for more images (max_images)."
                ) from problem
            except (RuntimeError, NotImplementedError) as problem:
                raise RunProblem(
                    f"The Hessian of {run.settings['student']['name']} cannot be computed: every operation has to be "
                    f"differentiable twice and {len(data[0][0])} images at once have to fit in memory "
                    f"({str(problem).splitlines()[0]})"
                ) from problem
            known = {"strategy": label, "domain": domain, "role": sweep.roles[domain]}
            known["n"] = sum(len(y) for _, y in data)
            rows = [("eigenvalue", rank, value, np.nan) for rank, value in enumerate(eigenvalues.tolist(), start=1)]
            rows.append(("trace", 0, trace, error))
            yield [known | dict(zip(("kind", "rank", "value", "standard_error"), row)) for row in rows]

    kept = {"points": len(places), "rows_per_point": top + 1, "unit": "Hessian", "progress": progress}
    return computed(file, identity, _COLUMNS, missing, **kept)


def spectrum(
    network: nn.Module, loss: nn.Module, data: Sequence[tuple[Tensor, Tensor]], *, top: int, probes: int, seed: int = 0
) -> tuple[np.ndarray, float, float]:
    """``(eigenvalues, trace, standard_error)`` of the Hessian of a mean loss over batches, in all of a network's parameters.

    Eigenvalues are the ``top`` largest, descending, by implicitly restarted Lanczos iterations to a relative 1e-4; the
    trace is the mean of v' H v over ``probes`` random sign vectors. The precision is that of the network and the data. A
    repeated call gives the same numbers.
    """
    parameters = [p.requires_grad_() for p in network.parameters()]
    with warnings.catch_warnings(), own_draws(parameters[0].device, seed):
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # what the library and forward differentiation import uses torch.jit
        from curvlinops import HessianLinearOperator, hutchinson_trace

        # data and network are fixed here, so the library need not probe whether they are
        hessian = HessianLinearOperator(
            network, loss, parameters, list(data), check_deterministic=False, num_data=sum(len(y) for _, y in data)
        )
        start = np.random.default_rng(seed).standard_normal(hessian.shape[0])
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
            operator = hessian.to_scipy(np.float64)
            eigenvalues = eigsh(operator, k=top, which="LA", tol=1e-4, v0=start, return_eigenvectors=False)
            quadratic = np.array([hutchinson_trace(hessian, 1).item() for _ in range(probes)])
    return np.sort(eigenvalues)[::-1], quadratic.mean().item(), (quadratic.std(ddof=1) / probes**0.5).item()


def _batches(images: Tensor | Rows, labels: Tensor, most: int, seed: int, *, batch_size: int = 128):
    """At most so many of a domain's images with their labels, drawn by seed, in batches."""
    drawn = np.random.default_rng(seed).permutation(len(images))[:most]
    chosen = [np.sort(drawn)[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
    return [(to_float(torch.as_tensor(images[part]).to(labels.device)), labels[part]) for part in chosen]

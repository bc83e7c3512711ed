"""Curvature against planted spectra, closed forms and the dense Hessian."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import nn

import wakd_kit as wk
from tests.softmax import expansion, trained
from wakd_kit.averaging import NoWindow, last, uniform
from wakd_kit.evaluation.export import Logits
from wakd_kit.evaluation.sweep import Sweep
from wakd_kit.landscape.curvature import _batches, curvature, spectrum
from wakd_kit.models.build import batchnorms
from wakd_kit.runs.store import RunProblem


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("curvature") / "run")


def test_a_quadratic_has_the_planted_eigenvalues_and_trace():
    """The mean of (x w - y)^2 over inputs x_i = sqrt(n h_i / 2) q_i has the Hessian sum of h_i q_i q_i'."""
    planted = np.array([9.0, 4.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.0, 0.0])
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    inputs = torch.from_numpy((np.sqrt(12 * planted / 2) * basis).T.copy())
    data = [(part, torch.zeros(len(part), 1, dtype=torch.float64)) for part in inputs.split(5)]
    network = nn.Linear(12, 1, bias=False).double()
    eigenvalues, trace, error = spectrum(network, nn.MSELoss(), data, top=4, probes=100, seed=3)
    assert eigenvalues == pytest.approx(planted[:4], rel=1e-6)
    assert abs(trace - planted.sum()) < 4 * error < 0.4 * planted.sum()
    # of v' H v for random signs v: twice the sum of squares beside the diagonal
    hessian = basis * planted @ basis.T
    assert error == pytest.approx(np.sqrt(2 * ((hessian - np.diag(np.diag(hessian))) ** 2).sum() / 100), rel=0.2)
    assert spectrum(network, nn.MSELoss(), data, top=4, probes=100, seed=3)[1:] == (trace, error)


def test_a_linear_classifier_has_the_closed_forms_spectrum_in_every_domain(linear):
    choices = {"last": last(linear.source_curves), "uniform": uniform(linear.source_curves)}
    table = curvature(linear, choices, top=3, probes=30)
    assert len(table) == 2 * 3 * (3 + 1)
    for (strategy, domain), rows in table.groupby(["strategy", "domain"]):
        hessian = expansion(linear, choices[strategy], domain)[2]
        exact = np.linalg.eigvalsh(hessian)[::-1]
        assert rows["rank"].tolist() == [1, 2, 3, 0] and rows["kind"].tolist() == 3 * ["eigenvalue"] + ["trace"]
        assert rows["value"].to_numpy()[:3] == pytest.approx(exact[:3], rel=1e-3)
        (trace,) = rows[rows["kind"] == "trace"].itertuples()
        assert abs(trace.value - exact.sum()) < 4 * trace.standard_error
        assert rows["standard_error"][rows["kind"] == "eigenvalue"].isna().all()
        assert set(rows["n"]) == {30 if domain == "c" else 6}
        assert set(rows["role"]) == {"target" if domain == "c" else "source"}


def test_domains_have_probes_of_their_own_and_what_does_not_converge_is_said(linear, monkeypatch):
    seeds = []

    def gives_up(*_, seed, **__):
        seeds.append(seed)
        if len(seeds) == 3:
            raise ArpackNoConvergence("No convergence (7 iterations)", [], [])
        return np.ones(2), 1.0, 0.1

    monkeypatch.setitem(curvature.__globals__, "spectrum", gives_up)
    with pytest.raises(
        RunProblem, match=r"The 2 largest eigenvalues .* around last on . did not converge .*: ask for fewer"
    ):
        curvature(linear, {"last": last(linear.source_curves)}, top=2, probes=3, seed=5, name="apart")
    assert seeds == [5, 6, 7]


@pytest.mark.parametrize(
    "wrong, sentence",
    [({"top": top}, "top counts eigenvalues: a whole number >= 1; got") for top in (0, 2.5, "2")]
    + [
        ({"top": 147}, "Curvature takes 1 to 146 eigenvalues here; got top=147."),
        ({"seed": -1}, "seed is a whole number >= 0"),
    ]
    + [({"probes": many}, "probes counts random sign vectors: a whole number >= 2; got") for many in (1, 2.5)]
    + [({"max_images": 8.5}, "max_images counts images of a domain: a whole number >= 1; got 8.5")],
)
def test_what_makes_no_sense_is_refused(linear, wrong, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        curvature(linear, {"last": last(linear.source_curves)}, **wrong)


def test_of_a_network_with_batchnorm_it_is_the_hessian_in_evaluation_mode(run):
    """Against Lanczos on second derivatives taken twice backwards, in float64: slow and obvious."""
    sweep = Sweep(run, workers=1)
    model = sweep.model_at(sweep.locate(uniform(run.source_curves)))
    ((images, labels),) = _batches(sweep.images["west"], sweep.labels["west"], 8, 1)
    (largest,), _, _ = spectrum(Logits(model), nn.CrossEntropyLoss(), [(images, labels)], top=1, probes=2)
    assert not any(layer.training for layer in batchnorms(model))
    theta = [*model.double().parameters()]
    slopes = torch.autograd.grad(F.cross_entropy(model(images.double()).logits, labels), theta, create_graph=True)

    def product(vector: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(vector.astype(np.float64)).split([p.numel() for p in theta])
        along = [part.view_as(p) for part, p in zip(parts, theta)]
        return torch.cat([p.flatten() for p in torch.autograd.grad(slopes, theta, along, retain_graph=True)]).numpy()

    size = sum(p.numel() for p in theta)
    hessian = LinearOperator((size, size), matvec=product, dtype=np.float64)
    (expected,), _ = eigsh(hessian, k=1, which="LA", v0=np.random.default_rng(0).normal(size=size))
    assert largest == pytest.approx(expected, rel=1e-3)


def test_attention_can_be_differentiated_twice():
    tap = wk.build_model("vit_d64", 3, seed=0, depth=1, embed_dim=16, num_heads=2).eval()
    network, images = tap.model, torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = [(images, torch.tensor([0, 1, 2, 0]))]
    (eigenvalue,), _, _ = spectrum(network, nn.CrossEntropyLoss(), data, top=1, probes=2)
    assert eigenvalue > 0
    twice = [(torch.cat([images, images]), torch.tensor([0, 1, 2, 0] * 2))]
    assert spectrum(network, nn.CrossEntropyLoss(), twice, top=1, probes=2)[0][0] == pytest.approx(eigenvalue, rel=1e-3)


class Once(torch.autograd.Function):
    """Half, with a derivative that has none."""

    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return slope / 2


class Halved(nn.Linear):
    def forward(self, images):
        return Once.apply(super().forward(images))


def test_what_cannot_be_differentiated_twice_is_said(linear):
    template = wk.models.as_tap(nn.Sequential(nn.Flatten(), Halved(48, 3)))
    linear = wk.load_run(linear.folder, split=linear.split, template=template)
    with pytest.raises(
        RunProblem, match=r"Hessian of .* cannot be computed: every operation has to be differentiable twice"
    ):
        curvature(linear, {"last": last(linear.source_curves)}, name="once")


def test_a_choice_without_a_window_has_no_rows_and_a_killed_table_goes_on(linear):
    choices = {"SWAD": NoWindow("no valley"), "last": last(linear.source_curves)}
    settings = {"top": 2, "probes": 3, "name": "killed"}
    whole = curvature(linear, choices, **settings)
    assert set(whole["strategy"]) == {"last"}
    file = linear.folder / "landscape" / "killed.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-2]))
    assert curvature(linear, choices, **settings).equals(whole)

"""Post-hoc moving averages of any length from one record: how exact are 64 stored segments beside EDM2's snapshots?

6,400 iterates of a synthetic run (400 dimensions, noise with a correlation of 30 steps and a drift), recorded in segments of 50 and stored by the
kit's own store, which merges neighbours down to 64 and keeps the newest 16 apart. A power profile of each length, from

  means    the stored segments' means, as ``power`` weighs them
  ramps    the same, and the ramp of each (``train(ramps=True)``), as ``run.average`` weighs it: coefficients are per recorded
           segment, within which a smooth profile is guessed from its neighbours
  ideal    the same ramps, weighed by the profile's own iterates
  edm2     2 x 64 snapshots of moving averages of the lengths 0.05 and 0.10, as arXiv 2312.02696 (section 3.2) reconstructs it

against the average of all iterates with the profile's own weights: |found - right| / |right - last iterate|, and the sum of absolute
coefficients, which multiplies the rounding of what is stored.

    python benchmarks/profiles.py

2026-11-27, AMD EPYC (numbers do not depend on it):

    exponents of lengths: 0.05 16.97, 0.1 6.94, 0.15 3.56, 0.2 1.83, 0.25 0.72
    64 stored segments: 15 of 50, 39 of 100, 5 of 150, 5 of 200
    median error over 3 runs
    average            means     ramps     ideal      edm2   |c| means  |c| edm2
    length 0.005     1.9e-01   2.5e-02   2.5e-02   1.1e-01         1.0     351.5
    length 0.01      5.7e-02   4.2e-03   4.1e-03   2.1e-02         1.0     142.1
    length 0.02      1.6e-02   6.6e-04   6.6e-04   2.5e-03         1.0      36.9
    length 0.05      3.5e-03   1.3e-04   1.3e-04   2.2e-14         1.0       1.0
    length 0.1       2.2e-03   4.9e-05   4.9e-05   1.1e-14         1.0       1.0
    length 0.15      1.2e-03   1.3e-05   1.3e-05   4.1e-05         1.0       1.7
    length 0.2       6.4e-04   7.3e-06   7.3e-06   1.1e-04         1.0       2.0
    length 0.25      6.7e-04   3.7e-05   3.8e-05   1.3e-03         1.0       2.2
    window 40-80 %   9.9e-03   5.5e-03   5.2e-03                   1.0
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from wakd_kit.averaging import Coefficients, Curves, gamma_of, power
from wakd_kit.averaging.profiles import leaning
from wakd_kit.checks import make
from wakd_kit.runs.settings import Settings, edges_to_keep
from wakd_kit.runs.store import Segments

STEPS, LENGTH, MOST, DIMENSIONS, CORRELATION = 6400, 50, 64, 400, 30
LENGTHS = (0.005, 0.01, 0.02, 0.05, 0.10, 0.15, 0.20, 0.25)
KEPT = (0.05, 0.10)  # EDM2's two, and its snapshots
EVERY = STEPS // MOST


def iterates(seed: int) -> np.ndarray:
    """(steps, dimensions): stationary noise of unit variance, and a straight drift of one of its deviations in each dimension."""
    rng, carry = np.random.default_rng(seed), np.exp(-1 / CORRELATION)
    noise, state = np.empty((STEPS, DIMENSIONS)), rng.normal(size=DIMENSIONS)
    for i in range(STEPS):
        state = carry * state + np.sqrt(1 - carry**2) * rng.normal(size=DIMENSIONS)
        noise[i] = state
    return noise + np.linspace(0, 1, STEPS)[:, None] * rng.normal(size=DIMENSIONS)


def stored_edges(run: np.ndarray) -> np.ndarray:
    """Ends of the segments that the kit's store keeps of a run."""
    settings = make(Settings, {"steps": STEPS, "segment_length": LENGTH, "most_stored": MOST, "declare": ["last"]})
    with tempfile.TemporaryDirectory() as folder:
        segments = Segments.create(Path(folder) / "segments", {"w": torch.zeros(1)}, "float32")
        for end in range(LENGTH, STEPS + 1, LENGTH):
            one = {"w": torch.tensor([run[end - 1, 0]], dtype=torch.float32)}
            segments.append(one, one, end - LENGTH + 1, end)
            if len(segments) > MOST:
                counts = [LENGTH] * (end // LENGTH)
                segments.shrink(MOST, edges_to_keep(Curves(counts, val_loss=np.ones(len(counts))), settings))
        return np.asarray(segments.edges)


def weights_of(length: float, until: int = STEPS) -> np.ndarray:
    """What each iterate counts in the moving average of this length at a step, (steps,)."""
    found = np.zeros(STEPS)
    found[:until] = np.asarray(power(Curves(np.ones(until, dtype=int)), sigma_rel=length))
    return found


def by_segments(weights: np.ndarray, edges: np.ndarray, *, ramps: str = "") -> tuple[np.ndarray, float]:
    """What iterates count when each stored segment gives its mean, and its ramp where asked; sum of absolute coefficients."""
    found, size = np.zeros(STEPS), 0.0
    if ramps == "kit":
        recorded = Curves([LENGTH] * (STEPS // LENGTH))
        strategy = "power" if weights[0] != weights[-1] else "window"
        own = Coefficients(weights.reshape(-1, LENGTH).sum(1), strategy=strategy)
        lean = leaning(recorded, own) * np.asarray(own) / (LENGTH * (LENGTH**2 - 1) / 12)  # the slope of the weights
        weights = (np.asarray(own)[:, None] / LENGTH + lean[:, None] * (np.arange(LENGTH) - (LENGTH - 1) / 2)).ravel()
    for first, end in zip([0, *edges[:-1]], edges):
        own, middle = weights[first:end], np.arange(end - first) - (end - first - 1) / 2
        found[first:end] = own.mean()
        size += own.sum()
        if ramps and end - first > 1:
            found[first:end] += middle * (own @ middle) / (middle @ middle)
    return found, size


def by_snapshots(length: float, until: int = STEPS) -> tuple[np.ndarray, float]:
    """What iterates count in EDM2's reconstruction of a length at a step."""
    at = [(EVERY * (i + 1), gamma_of(kept)) for kept in KEPT for i in range(MOST) if EVERY * (i + 1) <= until]
    ends, powers = (np.array(values, dtype=float) for values in zip(*at))
    products = overlap(ends[:, None], powers[:, None], ends, powers)
    wanted = overlap(ends, powers, float(until), gamma_of(length))
    x = np.linalg.lstsq(products, wanted, rcond=None)[0]
    x /= x.sum()
    snapshots = np.stack(
        [weights_of(kept, EVERY * (i + 1)) for kept in KEPT for i in range(MOST) if EVERY * (i + 1) <= until]
    )
    return x @ snapshots, float(np.abs(x).sum())


def overlap(a, ga, b, gb):
    """The inner product of two power profiles that end at a and b."""
    shorter = np.where(a < b, a / b, b / a)
    return (ga + 1) * (gb + 1) * shorter ** np.where(a < b, gb, ga) / ((ga + gb + 1) * np.maximum(a, b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="synthetic runs")
    seeds = range(parser.parse_args().seeds)
    runs = [iterates(seed) for seed in seeds]
    edges = stored_edges(runs[0])
    sizes, counts = np.unique(np.diff([0, *edges]), return_counts=True)
    print("exponents of lengths: " + ", ".join(f"{s:g} {gamma_of(s):.2f}" for s in (0.05, 0.10, 0.15, 0.20, 0.25)))
    print(f"{len(edges)} stored segments: " + ", ".join(f"{n} of {size}" for size, n in zip(sizes, counts)))
    print(
        f"median error over {len(runs)} runs\n{'average':14}{'means':>10}{'ramps':>10}{'ideal':>10}{'edm2':>10}{'|c| means':>12}{'|c| edm2':>10}"
    )
    window = np.zeros(STEPS)
    window[int(0.4 * STEPS) + 7 : int(0.8 * STEPS) + 7] = 1
    for name, wanted in [
        *((f"length {s:g}", weights_of(s)) for s in LENGTHS),
        ("window 40-80 %", window / window.sum()),
    ]:
        found = [by_segments(wanted, edges, ramps=ramps) for ramps in ("", "kit", "ideal")]
        found += [by_snapshots(float(name.split()[1]))] if name.startswith("length") else []
        errors = [np.median([error(run, weights, wanted) for run in runs]) for weights, _ in found]
        text = [f"{e:10.1e}" for e in errors] + [f"{'':10}"] * (4 - len(errors))
        print(f"{name:14}{''.join(text)}{found[0][1]:12.1f}" + (f"{found[3][1]:10.1f}" if len(found) > 3 else ""))


def error(run: np.ndarray, weights: np.ndarray, wanted: np.ndarray) -> float:
    right = wanted @ run
    return float(np.linalg.norm(weights @ run - right) / np.linalg.norm(right - run[-1]))


if __name__ == "__main__":
    main()

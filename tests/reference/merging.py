"""Slow, obvious merging: entry by entry, in plain Python lists. Nothing here shares code with the package."""

import math


def model_stock_of_the_network(start, states):
    """One angle of all parameters: the mean cosine over pairs; lists of numbers."""
    moved = [[a - b for a, b in zip(state, start)] for state in states]
    n = len(states)

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b))

    pairs = [(i, j) for i in range(n) for j in range(i)]
    cosines = [dot(moved[i], moved[j]) / math.sqrt(dot(moved[i], moved[i]) * dot(moved[j], moved[j])) for i, j in pairs]
    cos = max(0.0, sum(cosines) / len(pairs))
    t = n * cos / (1 + (n - 1) * cos)
    return [t * sum(state[k] for state in states) / n + (1 - t) * start[k] for k in range(len(start))]


def branch_merge(left, right, spread):
    """The paper's fusion of two flat tensors."""

    def probabilities(values):
        total = sum(math.exp(v) for v in values)
        return [math.exp(v) / total + 1e-8 for v in values]

    p, q = probabilities(left), probabilities(right)
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q))
    scores = [divergence * (a - b) for a, b in zip(left, right)]
    ordered = sorted(scores)
    low, median, high = (ordered[int(share * (len(scores) - 1))] for share in (0.25, 0.5, 0.75))
    threshold = median + spread * (high - low)
    return [b if s > threshold else a for a, b, s in zip(left, right, scores)]


def fused_rows(left, right, spread):
    """mergekit's fusion of two matrices, as lists of rows."""
    scores = []
    for old, new in zip(left, right):
        sums = [sum(math.exp(v) for v in row) for row in (new, old)]
        p, q = ([math.exp(v) / s + 1e-8 for v in row] for row, s in zip((new, old), sums))
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q))
        scores.append([abs(a - b) * divergence for a, b in zip(new, old)])
    ordered = sorted(s for row in scores for s in row)
    low, median, high = (ordered[int(share * (len(ordered) - 1))] for share in (0.25, 0.5, 0.75))
    threshold = median + spread * (high - low)
    return [[new if s >= threshold else old for old, new, s in zip(*rows)] for rows in zip(left, right, scores)]

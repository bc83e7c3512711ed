"""Slow, obvious penalties across domains, in plain Python from the papers' formulas; they share no code with the package.

``parts`` is a list of (features or logits, labels) of each domain that is there.
"""

import itertools
import math

from .objectives import mean, softmax


def columns(rows):
    return [list(column) for column in zip(*rows)]


def pairs(parts, distance):
    found = [distance(a, b) for a, b in itertools.combinations(parts, 2)]
    return mean(found) if found else 0.0


def moments(features):
    def apart(power):
        def distance(a, b):
            means = [[mean(v**power for v in column) for column in columns(part)] for part in (a, b)]
            return math.sqrt(sum((x - y) ** 2 for x, y in zip(*means)))

        return pairs(features, distance)

    return apart(1) + apart(2)


def covariance(rows):
    centred = [[v - mean(column) for v in column] for column in columns(rows)]
    return [[sum(x * y for x, y in zip(a, b)) / (len(rows) - 1) for b in centred] for a in centred]


def coral(features):
    def distance(a, b):
        means = mean((mean(x) - mean(y)) ** 2 for x, y in zip(columns(a), columns(b)))
        if min(len(a), len(b)) < 2:
            return means
        rows = zip(covariance(a), covariance(b))
        return means + mean((x - y) ** 2 for one, other in rows for x, y in zip(one, other))

    return pairs(features, distance)


def risk(logits, labels):
    return mean(-math.log(softmax(z)[y]) for z, y in zip(logits, labels))


def vrex(parts):
    losses = [risk(*part) for part in parts]
    return mean((loss - mean(losses)) ** 2 for loss in losses)


def slope(logits, labels, step=1e-5):
    """The derivative of the risk in a factor of the logits, at 1, by a central difference."""
    up, down = ([[factor * v for v in z] for z in logits] for factor in (1 + step, 1 - step))
    return (risk(up, labels) - risk(down, labels)) / (2 * step)


def irm(parts):
    halves = [[(z[i::2], y[i::2]) for i in (0, 1)] for z, y in parts]
    return mean(slope(*a) * slope(*b) if b[1] else 0.0 for a, b in halves)


def group_dro(steps, rate):
    """Losses of every step; each step is {domain: (logits, labels)}, all domains named in the first."""
    weights, found = dict.fromkeys(steps[0], 1.0), []
    for step in steps:
        losses = {domain: risk(*part) for domain, part in step.items()}
        for domain, loss in losses.items():
            weights[domain] *= math.exp(rate * loss)
        total = sum(weights[domain] for domain in step)
        found.append(sum(weights[domain] / total * loss for domain, loss in losses.items()))
    return found

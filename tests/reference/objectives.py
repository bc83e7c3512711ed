"""Slow, obvious objectives: loops over examples and classes in plain Python, written from the papers' formulas.

They take lists of lists (n examples of C logits) and labels, and share no code with the package.
"""

import math


def softmax(z, temperature=1.0):
    powers = [math.exp(v / temperature) for v in z]
    return [p / sum(powers) for p in powers]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q) if a > 0)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def divergence(student, teacher, temperature, kind):
    """T^2 times KL(t || s), KL(s || t), their sum, or the mean of both to the mixture."""
    total = []
    for s, t in zip(student, teacher):
        p, q = softmax(t, temperature), softmax(s, temperature)
        mixture = [(a + b) / 2 for a, b in zip(p, q)]
        total.append(
            {
                "forward": kl(p, q),
                "reverse": kl(q, p),
                "jeffreys": kl(p, q) + kl(q, p),
                "js": (kl(p, mixture) + kl(q, mixture)) / 2,
            }[kind]
        )
    return temperature**2 * mean(total)


def mse(student, teacher):
    return mean((s - t) ** 2 for row_s, row_t in zip(student, teacher) for s, t in zip(row_s, row_t))


def margin_mse(student, teacher, labels):
    squares = []
    for s, t, y in zip(student, teacher, labels):
        squares += [((s[y] - s[c]) - (t[y] - t[c])) ** 2 for c in range(len(s)) if c != y]
    return mean(squares)


def bckd(student, teacher, beta):
    total = []
    for row_s, row_t in zip(student, teacher):
        example = 0.0
        for s, t in zip(row_s, row_t):
            q, p = 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-t))
            example += abs(p - q) ** beta * -(p * math.log(q) + (1 - p) * math.log(1 - q))
        total.append(example)
    return mean(total)


def uld(student, teacher, temperature, standardise=False, top=None):
    total = []
    for s, t in zip(student, teacher):
        if standardise:
            s, t = (
                [(x - mean(z)) / (sum((y - mean(z)) ** 2 for y in z) / (len(z) - 1)) ** 0.5 for x in z] for z in (s, t)
            )
        s, t = (sorted(z, reverse=True)[:top] for z in (s, t))
        q, p = (sorted(softmax(z, temperature), reverse=True) for z in (s, t))
        most = max(len(p), len(q))
        p, q = p + [0.0] * (most - len(p)), q + [0.0] * (most - len(q))
        total.append(sum(abs(a - b) for a, b in zip(p, q)))
    return mean(total)


def rs_kd(student, teacher, drawn, proposal_temperature):
    """``drawn``: per example the classes that were drawn from the teacher's softmax at the proposal temperature."""
    total = []
    for s, t, classes in zip(student, teacher, drawn):
        p, proposal = softmax(t), softmax(t, proposal_temperature)
        weights = [classes.count(c) * p[c] / proposal[c] for c in range(len(t))]
        total.append(kl([w / sum(weights) for w in weights], softmax(s)))
    return mean(total)


def mlkd(student, teacher, temperatures):
    """Instance, batch and class level, summed over temperatures."""
    n, classes = len(student), len(student[0])
    total = 0.0
    for temperature in temperatures:
        q, p = ([softmax(z, temperature) for z in side] for side in (student, teacher))
        total += temperature**2 * mean(kl(a, b) for a, b in zip(p, q))
        for i in range(n):
            for j in range(n):
                one, other = (sum(side[i][c] * side[j][c] for c in range(classes)) for side in (p, q))
                total += (one - other) ** 2 / n
        for a in range(classes):
            for b in range(classes):
                one, other = (sum(side[i][a] * side[i][b] for i in range(n)) for side in (p, q))
                total += (one - other) ** 2 / classes
    return total


def taid(batches, steps, start, end, alpha, beta):
    """Loss of every (student, teacher) batch of a run that begins with its first step, and t after it."""
    t, previous, momentum, out = start, None, 0.0, []
    for step, (student, teacher) in enumerate(batches, start=1):
        total = []
        for row_s, row_t in zip(student, teacher):
            target = softmax([(1 - t) * a + t * b for a, b in zip(row_s, row_t)])
            total.append(-sum(p * math.log(q) for p, q in zip(target, softmax(row_s))))
        loss = mean(total)
        if previous is not None:
            momentum = beta * momentum + (1 - beta) * (previous - loss) / previous
            ahead = t + alpha / (1 + math.exp(-momentum)) * (1 - t)
            t = min(end, max(start + (end - start) * step / steps, ahead))
        previous = loss
        out.append((loss, t))
    return out


def warm_up(epoch, epochs):
    """DKD's trainer: a factor on the loss."""
    return min(epoch / epochs, 1.0)


def cosine_decay(epoch, epochs):
    """CTKD's curriculum: the factor on theta's gradient falls from 0 to -1."""
    epoch = min(max(epoch, 0), epochs)
    return (math.cos(epoch * math.pi / epochs) + 1.0) * 0.5 * (0 - (-1)) + (-1)


def cwtm(student, teacher, labels):
    confidence = [max(softmax(z)) for z in teacher]
    losses = [-math.log(softmax(z)[y]) for z, y in zip(student, labels)]
    return sum(c * loss for c, loss in zip(confidence, losses)) / sum(confidence)


def std_ce(student, labels):
    losses = []
    for z, y in zip(student, labels):
        centre = mean(z)
        deviation = math.sqrt(sum((v - centre) ** 2 for v in z) / (len(z) - 1))
        losses.append(-math.log(softmax(z, deviation)[y]))
    return mean(losses)


def gated_kd(student, teacher, labels, temperature, k):
    ranks = [sorted(range(len(z)), key=lambda c: -z[c]).index(y) + 1 for z, y in zip(teacher, labels)]
    gate = mean([1 / rank if rank <= k else 0.0 for rank in ranks])
    return gate * divergence(student, teacher, temperature, "forward")


def label_mse(student, labels):
    return mean((v - (c == y)) ** 2 for z, y in zip(student, labels) for c, v in enumerate(z))


def abkd(student, teacher, alpha, beta, temperature):
    total = []
    for s, t in zip(student, teacher):
        p, q, both = softmax(t, temperature), softmax(s, temperature), alpha + beta
        inside = [a**alpha * b**beta - alpha / both * a**both - beta / both * b**both for a, b in zip(p, q)]
        total.append(-sum(inside) / (alpha * beta))
    return mean(total)


def cosine_distance(student, teacher):
    def length(v):
        return math.sqrt(sum(x * x for x in v))

    return mean(1 - sum(x * y for x, y in zip(s, t)) / (length(s) * length(t)) for s, t in zip(student, teacher))

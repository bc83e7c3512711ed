"""Slow, obvious objectives on features: loops in plain Python, written from the papers' formulas.

Features are lists of lists (n examples of d numbers), maps are nested lists [n][channels][height][width]. Nothing is
shared with the package.
"""

import math

from .objectives import mean, softmax


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def length(a):
    return math.sqrt(dot(a, a))


def cosine(a, b):
    return dot(a, b) / (length(a) * length(b))


def columns(features, labels, label):
    """Mean feature of the examples of a class."""
    own = [f for f, y in zip(features, labels) if y == label]
    return [mean(values) for values in zip(*own)]


def hint(projected, target, *, normalised):
    """Mean squared difference of two maps of one size; the target's channels to mean 0 and variance 1 per position."""
    squares = []
    for s, t in zip(projected, target):
        for row in range(len(t[0])):
            for column in range(len(t[0][0])):
                ours, theirs = [c[row][column] for c in s], [c[row][column] for c in t]
                if normalised:
                    middle = mean(theirs)
                    spread = math.sqrt(mean((v - middle) ** 2 for v in theirs) + 1e-5)
                    theirs = [(v - middle) / spread for v in theirs]
                squares += [(a - b) ** 2 for a, b in zip(ours, theirs)]
    return mean(squares)


def cc_paper(student, teacher, gamma, order):
    """Gaussian kernel of unit vectors as a Taylor series of ``exp(2 gamma x.y)``."""
    n, total = len(student), 0.0
    for i in range(n):
        for j in range(n):
            entries = []
            for features in (student, teacher):
                product = cosine(features[i], features[j])
                series = sum((2 * gamma) ** p / math.factorial(p) * product**p for p in range(order + 1))
                entries.append(math.exp(-2 * gamma) * series)
            total += (entries[0] - entries[1]) ** 2
    return total / n**2


def prototypes(student, teacher, labels):
    squares = []
    for label in sorted(set(labels)):
        prototypes = [columns(features, labels, label) for features in (student, teacher)]
        for s, t in zip(student, teacher):
            squares.append((cosine(s, prototypes[0]) - cosine(t, prototypes[1])) ** 2)
    return mean(squares)


def miro(student, teacher, variance):
    """Half of squared differences over a variance, and its logarithm, mean over everything in one map."""
    terms = []
    for s, t in zip(student, teacher):
        for ours, theirs in zip(s, t):
            terms += [(a - b) ** 2 / variance + math.log(variance) for x, y in zip(ours, theirs) for a, b in zip(x, y)]
    return mean(terms) / 2


def info_nce(ours, theirs, labels, temperature):
    """``ours`` and ``theirs`` are embeddings; an example's own pair against pairs of other classes, both ways."""
    total = []
    for i in range(len(ours)):
        rivals = [i] + [j for j in range(len(ours)) if labels[j] != labels[i]]
        ahead = [cosine(ours[i], theirs[j]) / temperature for j in rivals]
        back = [cosine(ours[j], theirs[i]) / temperature for j in rivals]
        total.append(-math.log(softmax(ahead)[0]) - math.log(softmax(back)[0]))
    return mean(total)


def wcord(ours, theirs, labels, global_weight, local_weight, epsilon, iterations):
    n = len(ours)
    scores = [[cosine(a, b) for b in theirs] for a in ours]
    negative = [scores[i][j] for i in range(n) for j in range(n) if labels[i] != labels[j]]
    gap = mean(negative) - mean(scores[i][i] for i in range(n))
    plan = [[math.exp(-(1 - v) / epsilon) for v in row] for row in scores]
    for _ in range(iterations):
        plan = [[v / sum(row) for v in row] for row in plan]
        sums = [sum(row[j] for row in plan) for j in range(n)]
        plan = [[v / s for v, s in zip(row, sums)] for row in plan]
    cost = sum(plan[i][j] * (1 - scores[i][j]) for i in range(n) for j in range(n)) / n
    return global_weight * gap + local_weight * cost


def ofa(logits, teacher, labels, epsilons):
    """``logits``: one list of examples per head, the student's own last."""
    total = 0.0
    for head, epsilon in zip(logits, epsilons):
        losses = []
        for s, t, y in zip(head, teacher, labels):
            p, q = softmax(t), softmax(s)
            one = [1.0 if c == y else 0.0 for c in range(len(p))]
            losses.append(-sum(((a + o) ** epsilon - o) * math.log(b) for a, b, o in zip(p, q, one)))
        total += mean(losses)
    return total


def norm_and_direction(projected, teacher, centres, labels):
    losses = []
    for s, t, y in zip(projected, teacher, labels):
        direction = [v / length(centres[y]) for v in centres[y]]
        losses.append(1 - dot(s, direction) / max(length(s), length(t)))
    return mean(losses)


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q))


def qkv_relations(ours, theirs, heads):
    """Joints [n][3][head][token][width]; each token's queries, keys or values side by side over all heads, cut into ``heads``."""
    total = 0.0
    for which in range(3):
        found = []
        for example in range(len(ours)):
            for head in range(heads):
                rows = []
                for joint in (ours, theirs):
                    of_heads = joint[example][which]
                    tokens = [[v for h in of_heads for v in h[token]] for token in range(len(of_heads[0]))]
                    width = len(tokens[0]) // heads
                    parts = [token[head * width : (head + 1) * width] for token in tokens]
                    rows.append([softmax([dot(a, b) / math.sqrt(width) for b in parts]) for a in parts])
                found += [kl(t, s) for s, t in zip(*rows)]
        total += mean(found)
    return total


def attention_map(joint, example, head):
    """Flat: for each query in turn, how it looks at all keys."""
    q, k, _ = (joint[example][which][head] for which in range(3))
    rows = [softmax([dot(a, b) / math.sqrt(len(a)) for b in k]) for a in q]
    return [value for row in rows for value in row]


def a2d(ours, theirs, weights, biases):
    """Lists of joints, one a block; ``weights`` [teacher's head][student's head]."""
    total = 0.0
    for example in range(len(ours[0])):
        s, t = (
            [attention_map(joint, example, head) for joint in blocks for head in range(len(joint[0][0]))]
            for blocks in (ours, theirs)
        )
        for head, (row, bias) in enumerate(zip(weights, biases)):
            mixed = [bias + sum(w * m[i] for w, m in zip(row, s)) for i in range(len(s[0]))]
            total += kl(softmax(t[head]), softmax(mixed))
    return total / len(ours[0])

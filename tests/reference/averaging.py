"""Slow, obvious averaging: every function trains along, one iterate after another, and averages one-hot parameters.

Iterate i of a run of T steps has the parameters e_i (one-hot, length T), so the averaged parameters are the
coefficients per iterate. ``per_segment`` folds them to what a strategy returns. Nothing here shares code with the
package. Segments are given as their numbers of iterates; steps count from 1.
"""

from collections import deque

import numpy as np


def per_segment(per_iterate, iterates):
    folded, at = [], 0
    for count in iterates:
        folded.append(sum(per_iterate[at : at + count]))
        at += count
    return np.array(folded)


def iterate(i, steps):
    return np.eye(steps)[i - 1]


def segment_ends(iterates):
    return [sum(iterates[: k + 1]) for k in range(len(iterates))]


class RunningMean:
    def __init__(self):
        self.n, self.value = 0, 0.0

    def add(self, parameters):
        self.value = (self.value * self.n + parameters) / (self.n + 1)
        self.n += 1


def mean_of_whole_segments(iterates, begin, end):
    """Mean of the iterates of every segment that lies after ``begin`` and up to ``end``; None if there is none."""
    average, at, steps = RunningMean(), 0, sum(iterates)
    for count in iterates:
        if at >= begin and at + count <= end:
            for i in range(at + 1, at + count + 1):
                average.add(iterate(i, steps))
        at += count
    return per_segment(average.value, iterates) if average.n else None


def ema(iterates, begin, decays, initial=False):
    """Moving average over single iterates after ``begin``; ``decays(t)`` for the t-th step after the first."""
    steps = sum(iterates)
    average = np.append(np.zeros(steps), 1.0)  # last entry: the initial parameters
    for i in range(begin + 1, steps + 1):
        t = i - begin - 1
        decay = 0.0 if t == 0 and not initial else decays(t)
        average = decay * average + (1 - decay) * np.append(iterate(i, steps), 0.0)
    return per_segment(average[:-1], iterates), average[-1]


def power(iterates, begin, gamma):
    """EDM2's update, fed one iterate after another."""
    return ema(iterates, begin, lambda t: (1 - 1 / (t + 1)) ** (gamma + 1))[0]


def bema(iterates, begin, every, ema_power, bias_power, lag, multiplier):
    """The published callback fed one iterate after another; with ``every`` None each step updates."""
    steps = sum(iterates)
    point = lambda i: np.append(iterate(i, steps), 0.0) if i else np.append(np.zeros(steps), 1.0)  # noqa: E731
    start, average, found = point(begin), point(begin), None
    for t in range(begin + 1, steps + 1):
        if (t - begin) % (every or 1) == 0:
            move = min(1.0, (lag + multiplier * t) ** -ema_power)
            average = (1 - move) * average + move * point(t)
            found = average + (lag + multiplier * t) ** -bias_power * (point(t) - start)
    return per_segment(found[:-1], iterates), found[-1]


def decayed(iterates, begin, rate):
    """What a run reaches whose update i of n after ``begin`` is taken ``rate((i - 1) / n)`` times, and how much of each iterate
    that is: updates are differences of iterates, so every weight falls on two of them."""
    steps = sum(iterates)
    n, point = steps - begin, iterate(begin, steps) if begin else np.zeros(steps)
    for i in range(begin + 1, steps + 1):
        before = iterate(i - 1, steps) if i > 1 else np.zeros(steps)
        point = point + rate((i - begin - 1) / n) * (iterate(i, steps) - before)
    return per_segment(point, iterates)


def swa(epochs, start, period):
    average = RunningMean()
    for epoch in range(1, epochs + 1):
        if epoch >= start and (epoch - start) % period == 0:
            average.add(iterate(epoch, epochs))
    return average.value


def lawa(iterates, k):
    latest = deque(maxlen=k)
    for segment in range(len(iterates)):
        latest.append(np.eye(len(iterates))[segment])
    return sum(latest) / len(latest)


def swad_algorithm_1(iterates, losses, n_converge, n_tolerance, ratio):
    """Algorithm 1 of the SWAD paper with i, t_s and t_e counted from 1 and the loss before step 1 infinite."""
    loss = lambda i: losses[i - 1] if i >= 1 else np.inf  # noqa: E731
    t_s, t_e, threshold = 0, len(losses), None
    for i in range(1, len(losses) + 1):
        if t_s == 0:
            recent = [loss(i - j) for j in range(n_converge)]
            if i >= n_converge and loss(i - n_converge + 1) == min(recent):
                t_s = i - n_converge + 1
                threshold = (1 + ratio) * (sum(recent) / n_converge)
        elif threshold < min(loss(i - j) for j in range(n_tolerance)):
            t_e = i - n_tolerance
            break
    if t_s == 0:
        return None
    ends = [0, *segment_ends(iterates)]
    average = RunningMean()
    for i in range(ends[t_s - 1] + 1, ends[t_e] + 1):
        average.add(iterate(i, sum(iterates)))
    return per_segment(average.value, iterates)


def swad_published(losses, n_converge, n_tolerance, ratio):
    """The two queues of the authors' trainer, fed one validation at a time."""
    count = len(losses)
    average, stopped, threshold, converged = RunningMean(), False, None, None
    converge_queue, smooth_queue = deque(maxlen=n_converge), deque(maxlen=n_tolerance)
    model = lambda k: np.eye(count)[k]  # noqa: E731
    smallest = lambda queue: min(losses[k] for k in queue)  # noqa: E731
    for t in range(count):
        converge_queue.append(t)
        smooth_queue.append(t)
        if converged is None:
            if len(converge_queue) == n_converge and losses[converge_queue[0]] == smallest(converge_queue):
                converged = converge_queue[0]
                threshold = np.mean([losses[k] for k in converge_queue]) * (1 + ratio)
                for position in range(1, n_converge - n_tolerance + 1):
                    average.add(model(converge_queue[position]))
                if n_tolerance > n_converge:
                    waiting = list(smooth_queue)[: n_tolerance - n_converge + 1]
                    admissible = waiting[:]
                    while any(losses[k] > threshold for k in admissible):
                        admissible.pop(0)
                    for k in admissible[1:]:
                        average.add(model(k))
        elif smooth_queue[0] >= converged:
            if smallest(smooth_queue) > threshold:
                stopped = True
                break
            average.add(model(smooth_queue[0]))
    if converged is None:
        return None
    if not stopped:
        smooth_queue.popleft()
        while smooth_queue and smallest(smooth_queue) <= threshold:
            average.add(model(smooth_queue.popleft()))
    return average.value if average.n else model(converged)


def swad_wakd_repo(losses, n_converge, n_tolerance, multiplier):
    count = len(losses)
    average, waiting, begun, done, threshold = RunningMean(), deque(), False, False, None
    for t in range(count):
        if done:
            break
        waiting.append(t)
        recent = losses[max(0, t - n_converge + 1) : t + 1]
        if not begun:
            if len(waiting) > n_converge:
                oldest = waiting.popleft()
                if recent[0] == min(recent):
                    begun, threshold = True, np.mean(recent) * multiplier
                    average.add(np.eye(count)[oldest])
        elif len(waiting) >= n_tolerance - 1:
            average.add(np.eye(count)[waiting.popleft()])
            done = min(losses[max(0, t - n_tolerance + 1) : t + 1]) > threshold
    if not begun:
        return None
    while waiting and not done:
        average.add(np.eye(count)[waiting.popleft()])
    return average.value


def sma(steps, start, frequency, score, variant):
    """The moving-average trainers, at every step. Returns coefficients per iterate, then of the initial parameters."""
    average, count = np.append(np.zeros(steps), 1.0), 0
    best, best_average = -np.inf, None
    for step in range(steps):
        g = step + 1
        model = np.append(iterate(g, steps), 0.0)
        if g >= start:
            if variant == "diwa" and count == 0 and start > 1:
                average = model  # until now the average had shared the model's storage
            count += 1
            average = (average * count + model) / (1 + count)
        else:
            average = model
        if step % frequency == 0 or step == steps - 1:
            value = score(average[:-1])
            if value > best:
                best, best_average = value, average
    return best_average


def sma_from_next(iterates, start, score):
    """Plain form: average the whole segments after ``start``; score at each segment end."""
    best, chosen = -np.inf, None
    for end in segment_ends(iterates):
        average = mean_of_whole_segments(iterates, start, end)
        if average is not None and score(average) > best:
            best, chosen = score(average), average
    return chosen


def iidmax(accuracies, score):
    count = len(accuracies)
    best, best_average, average, chosen = 0, 0, None, None
    for k, accuracy in enumerate(accuracies):
        if accuracy > best:
            best, average = accuracy, RunningMean()
        if average is None:
            return None
        average.add(np.eye(count)[k])
        value = score(average.value)
        if value > best_average:
            best_average, chosen = value, average.value
    return chosen


def greedy(accuracies, score, ties):
    """Model soups (ties="later", strictly better) or DiWA (ties="earlier", at least as good)."""
    count = len(accuracies)
    left, soup, best = list(range(count)), RunningMean(), -np.inf
    while left:
        top = max(accuracies[i] for i in left)
        equals = [i for i in left if accuracies[i] == top]
        candidate = equals[-1] if ties == "later" else equals[0]
        left.remove(candidate)
        trial = (soup.value * soup.n + np.eye(count)[candidate]) / (soup.n + 1)
        value = score(trial)
        if value > best or (ties == "earlier" and value == best):
            best = value
            soup.add(np.eye(count)[candidate])
    return soup.value

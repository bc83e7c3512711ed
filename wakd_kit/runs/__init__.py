"""Train once and record: the one training loop, its settings, and the folder that holds the trajectory.

run = train(student, split, teacher=..., objectives=...)    one folder: settings, source curves, segments
segment k = (mean of its iterates, its last iterate)
run.average(coefficients) = sum over k of coefficients[k] * segment[k]
"""

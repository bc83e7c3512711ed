"""Train once and record: the one training loop, its settings, and the folder that holds the trajectory.

run = train(student, split, teacher=..., objectives=...)    one folder: settings, source curves, segments
segment k = (mean of its iterates, its last iterate)        two neighbours merge to the exact mean over both
run.average(coefficients) = sum over k of coefficients[k] * segment[k]
Network(run, split).take(coefficients)                      that average as a model on the device, BatchNorm decided
"""

"""What many runs say: recorded runs collected, compared in pairs, with the intervals that so few can carry.

recorded = collect(folder)                          every run below it, with its scores
difference = score(average) - score(baseline)       paired by target and seed
"""

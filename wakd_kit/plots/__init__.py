"""Figures: what was measured, drawn and said in words. Nothing is evaluated here.

(figure, alt) = accuracy_by_domain(run.scores)      of one run; surface: around it; many_runs, gains: over many
alt                                                 what the figure shows, in a sentence, from the same numbers
"""

"""Domains and what is shown of them: benchmarks of several domains, splits that leave one out, views, batches.

domains = load_domains("digits")                            a mapping: domain -> images, labels, originals
split = leave_one_out(domains, target="sketch", seed=0)     train + validation of the sources | the target, for testing only
batch = SourceBatches(split, size, sampling, seed)[step]    a function of seed and step
"""

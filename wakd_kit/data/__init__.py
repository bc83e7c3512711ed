"""Domains and what is shown of them: benchmarks of several domains, splits that leave one out, views, batches.

domains = load_domains("digits")                                 a mapping: domain -> Examples(images, labels, originals)
split = leave_one_out(domains, target="sketch", seed=0)          train + val of the sources | the target, for testing only
index = SourceBatches(split, size, sampling, seed, device).index(step)    which images: a function of seed and step

domains.py   Domains, Split, Examples; load_domains, one loader per benchmark   digits.py   the benchmark that ships
folders.py   domain/class/images, decoded once and mapped                       check.py    what a folder holds: wakd data check
catalog.py   published benchmarks, their facts in catalog.toml                  fetch.py, unpack.py   wakd data get
augment.py   Views and augment: random views on the device                      batches.py  what a step sees
mixing.py    Mix and Second: mixup and CutMix
"""

"""A study: one small YAML file -> every training, measurement and page that it asks for, each made once.

    study = load_study(file)             a question: benchmark, targets, seeds, teacher, students, strategies
    jobs  = plan(study, place)           {target x seed x (teacher, student)}, then notebooks over all of them
    job   = (notebook, parameters, what it waits for, digests of the code and data it depends on)
    done(job)  <=>  same parameters, same code, same data, same results of the jobs before it, and its files are there

specification.py  what a study may say, checked as far as it can be read without images and models
steps.py          one job of it: a notebook with complete parameters, rehearsed before anything trains
plan.py           all jobs that follow; draws.py: those of its search, and what won
jobs.py           one job: its reason to run, its lock, what is written when it is done; what a recording was begun with
run.py            all jobs: snakemake or one by one, what is left, what failed, status
Snakefile, profiles/  for the engine, here or on a cluster
"""

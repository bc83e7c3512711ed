"""A study: one YAML file -> jobs (notebooks with complete parameters) -> what is done stays done -> a report.

jobs = plan(load_study("quickstart"), place)
done(job) = same parameters, same code, same results of the jobs before it
"""

"""What an average is worth: the way from coefficients to a network, and what is measured on it.

network(coefficients) = the student with run.average(coefficients), BatchNorm decided, on its device
evaluate(run, {label: coefficients}) -> strategy x domain: accuracy, nll, ece
"""

from ..runs.network import predict
from .scores import evaluate, evaluate_model, score_choices, source_score

__all__ = ["evaluate", "evaluate_model", "predict", "score_choices", "source_score"]

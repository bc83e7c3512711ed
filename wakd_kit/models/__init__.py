"""Any timm model behind one tap, the weights that it starts from, and what BatchNorm does when parameters are averaged.

output = tap(images)           Output(logits, pooled, maps): what objectives read, normalised the model's own way
state = tap.state_dict()       what is recorded and averaged
"""

from .build import BATCHNORM_POLICIES, as_tap, batchnorms, build_model, in_eval, recalibrate, training_mode
from .tap import Adapter, LogitsTap, Output, Tap

__all__ = [
    "BATCHNORM_POLICIES",
    "Adapter",
    "LogitsTap",
    "Output",
    "Tap",
    "as_tap",
    "batchnorms",
    "build_model",
    "in_eval",
]
__all__ += ["recalibrate", "training_mode"]

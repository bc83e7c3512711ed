"""Any timm model behind one tap, the weights that it starts from, and what BatchNorm does when parameters are averaged.

tap(images in [0, 1]) = Output(logits, pooled, maps)    what objectives read; normalised and resized the model's own way
tap(images, maps="attention")                           and queries, keys and values of a transformer's blocks
tap.state_dict() = parameters and buffers               what is recorded and averaged
tail(tap(images)) = Output with logits of its own       what simkd and dho deploy with the student, averaged as well
"""

from .build import BATCHNORM_POLICIES, as_tap, batchnorms, build_model, in_eval, recalibrate, training_mode
from .tap import Adapter, LogitsTap, Output, Tap

__all__ = ["BATCHNORM_POLICIES", "Adapter", "LogitsTap", "Output", "Tap", "as_tap", "batchnorms", "build_model"]
__all__ += ["in_eval", "recalibrate", "training_mode"]

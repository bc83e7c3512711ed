"""The loss around one recorded run: planes, lines and barriers, flatness, curvature, the dip between neighbouring iterates.

plane(run, {"last": a, "WAKD": b, ...}) -> loss at a + x u + y v, every point with its BatchNorm
a point = coefficients | "initial" | (run, coefficients) | a state_dict
"""

from .curvature import curvature
from .flatness import flatness
from .surface import Plane, barrier, line, load, names, plane

__all__ = ["Plane", "barrier", "curvature", "flatness", "line", "load", "names", "plane"]

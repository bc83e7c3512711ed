"""What the lessons under notebooks/lessons need beyond the kit: exercises that are checked, and runs that are there at once.

check("00.1", answer)    says in a sentence whether it is right, or what is wrong with it
solution("00.1")         prints one way to do it
recorded("CE")           a small run on the digits, trained once in seconds and kept in the cache
"""

from .exercises import check, solution

__all__ = ["check", "folder", "make_all", "recorded", "solution", "windows"]


def __getattr__(name: str):
    if name not in ("folder", "make_all", "recorded", "windows"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import recordings  # torch, which a lesson in numpy does without

    return getattr(recordings, name)

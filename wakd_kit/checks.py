"""Dataclasses from plain values: what fits each field is said by its annotation, ``steps: Annotated[int, whole(1)]``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import numbers
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields

from .names import Bound, ParameterError, closest, did_you_mean, is_whole, unboxed


@functools.cache
def hints(cls: type) -> dict[str, object]:
    """What fits each field of a dataclass, bounds included: ``Annotated[int, whole(1)]``."""
    return typing.get_type_hints(cls, include_extras=True)


def make(cls: type, given: Mapping[str, object]):
    """An instance of a dataclass from plain values, each checked by name, type and bound; ``ParameterError`` otherwise.

    A whole number widens to a float and a list to a tuple; a bool is no number, and text is never converted. Everything
    that does not fit is named at once.
    """
    known = {f.name: f for f in fields(cls)}
    problems = [did_you_mean("parameter", name, known) for name in given if name not in known]
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in given]
    if missing:
        problems.append(f"{cls.__name__} needs {', '.join(missing)}.")
    fit, values = hints(cls), {}
    for name in given.keys() & known.keys():
        try:
            values[name] = fitted(name, given[name], fit[name])
        except ParameterError as problem:
            problems.append(str(problem))
    if problems:
        raise ParameterError(" ".join(sorted(problems)))
    return cls(**values)


def fitted(name: str, value: object, hint: object) -> object:
    """The value as its annotation has it. Raises ``ParameterError`` where its type or a bound does not fit."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        bounds = [bound for bound in options[1:] if isinstance(bound, Bound)]
        try:
            value = fitted(name, value, options[0])
        except ParameterError as problem:
            raise ParameterError(" ".join([str(problem), *(f"{name} {bound.words}." for bound in bounds)])) from None
        for bound in bounds:
            bound.check(name, value)
        return value
    if origin in (typing.Union, types.UnionType):
        problems = []
        for option in options:
            try:
                return fitted(name, value, option)
            except ParameterError as problem:
                problems.append(problem)
        # of the right type for one of them: what that one says is nearer than that none fits
        said = (p for p in problems if "expected" not in str(p) or str(p).startswith(f"{name}["))
        raise next(said, _unfit(name, value, hint))
    if origin is typing.Literal:
        if not isinstance(value, str | int) or isinstance(value, bool) or value not in options:
            listed = ", ".join(map(repr, options))
            raise ParameterError(f"{name}={value!r}: choose one of {listed}.{closest(value, map(str, options))}")
        return value
    wanted = origin or hint
    if wanted is int and is_whole(value):
        return int(value)
    if wanted is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if wanted is tuple and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        value = tuple(value)
    if wanted in (int, float) or not isinstance(value, wanted):
        raise _unfit(name, value, hint)
    if wanted in (list, tuple) and options:
        return wanted(fitted(f"{name}[{i}]", item, options[0]) for i, item in enumerate(value))
    return value


def _unfit(name: str, value: object, hint: object) -> ParameterError:
    got = "None" if value is None else type(value).__name__
    return ParameterError(f"{name}={value!r}: expected {spelled(hint)}, got {got}.")


def spelled(hint: object) -> str:
    """A type as it is said: "int or None"."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return spelled(options[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("None" if o is type(None) else spelled(o) for o in options)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, options))
    return getattr(hint, "__name__", str(hint))


def explained(function: Callable) -> Callable:
    """The same function, which takes numbers of numpy for those of Python, and whose ``TypeError`` for a call that it does not
    take is one sentence: what came, did you mean, what fits. ``ValueError`` where an argument lacks what this package asks it for."""
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]

    @functools.wraps(function)
    def call(*given, **settings):
        unknown = [name for name in settings if name not in names]
        missing = [name for name in needed[len(given) :] if name not in settings]
        if unknown and len(names) == len(parameters):
            raise TypeError(did_you_mean(f"setting of {function.__name__}", unknown[0], names))
        if missing:
            meant = closest(unknown[0], missing) if unknown else ""
            raise TypeError(
                f"{function.__name__} needs {' and '.join(missing)}; got {', '.join([*names[: len(given)], *settings]) or 'nothing'}."
                f"{meant} It takes {', '.join(names)}."
            )
        try:
            return function(*map(unboxed, given), **unboxed(settings))
        except AttributeError as error:
            came = _lacking(error, {**dict(zip(names, given)), **settings})
            if not came:
                raise
            raise ValueError(
                f"{function.__name__} asks {came} for {error.name!r}, which it does not have. Give what help({function.__name__}) "
                "says; a module that is not timm's goes in an Adapter (docs/own-models.md)."
            ) from error

    return call


def _lacking(error: AttributeError, given: Mapping[str, object]) -> str:
    """The argument that lacks an attribute which this package asked it for; "" where no argument does, for a mistake."""
    package, asked = __name__.partition(".")[0], error.obj
    if asked is None or isinstance(asked, numbers.Number):  # one object wherever it stands: it may be no argument's
        return ""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name != "__getattr__"]
    if frames[-1].f_globals.get("__name__", "").partition(".")[0] != package:
        return ""
    return next((f"{name}={value!r:.80}" for name, value in given.items() if value is asked), "")


def parse(cls: type, name: str, text: str) -> object:
    """A value from the command line, typed by its field: ``target=2012`` is text, ``steps=2012`` a number.

    JSON where the field takes what it says, else the text as it was typed; none, None and null where it takes None, True
    and False where it takes those. What fits nothing comes back as JSON or text for ``make`` to refuse.
    """
    words = {"none": None, "None": None, "True": True, "False": False}
    readings = [words[text]] if text in words else []
    with contextlib.suppress(ValueError):
        readings.append(json.loads(text))
    hint = hints(cls).get(name)
    for reading in [*readings, text] if hint else []:
        with contextlib.suppress(ParameterError):
            fitted(name, reading, hint)
            return reading
    return next(iter(readings), text)

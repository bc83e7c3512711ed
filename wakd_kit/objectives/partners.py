"""Objectives that own networks, which are trained along with the student and see the same images: partners, experts, an adapter.

Only the student is recorded and averaged. Partners are kept by checkpoints and dropped in the end; they compute in float32, and
their BatchNorm is trained whatever the student's does. ``rate`` is that of their parameters as a multiple of the student's.
A partner is built by its timm name (``model``), else it is a network like the student from other initial parameters.
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.build import build_model
from ..models.inside import Perturbed, after_stages
from ..models.tap import Output
from ..models.weights import SMALL
from ..names import counted, not_negative, positive
from .base import hard, logit_pair, logits_of, objectives, pooled_of, target_of, widened
from .logits import ce, tempered_kl


class Stand(nn.Module):
    """What stands for a partner where no student is known: an objective is only tried out."""

    def __init__(self, classes: int):
        super().__init__()
        self.classifier = nn.Linear(3, classes)

    def forward(self, images: Tensor, *, maps: bool = True) -> Output:
        """Logits of the mean colour."""
        return Output(self.classifier(images.mean((2, 3))), images.mean((2, 3)))


def partner_of(pair, model: str | None) -> nn.Module:
    """A network for the pair's classes, on the CPU. Raises ``ValueError`` where it is to be like a student that nobody can build again."""
    seed = int(torch.randint(2**31, ()))  # not the student's
    if pair.spec is None:
        if not (model is None or str(model).partition(".")[0] in SMALL or timm.is_model(str(model))):
            build_model(str(model), pair.classes)  # says which names are near
        return Stand(pair.classes)
    spec = pair.spec
    if model is not None:
        made = build_model(model, pair.classes, seed=seed)
    elif "classes" not in spec:
        raise ValueError(
            f"No network like {spec['name']} can be built from its name; give the objective a model of timm's."
        )
    else:
        settings = {key: value for key, value in spec["settings"].items() if key != "deployed"}
        start = {key: spec[key] for key in ("pretrained", "weights") if key in spec}
        made = build_model(spec["name"], spec["classes"], seed=seed, **start, **settings)
    return made.to(memory_format=torch.channels_last)


@objectives.declare(
    name="mutual",
    kind="partners",
    needs="labels images",
    source="DML, Zhang et al. 2018, arXiv 1706.00384, equations 5 to 8",
)
class Mutual(nn.Module):
    """Two networks learn from labels and from each other: ``T^2 KL(partner || student) + CE(partner) + T^2 KL(student || partner)``,
    the target of each KL not differentiated.

    Beside ``ce``, which is the student's own. Online distillation of the CTCD kind is this with a larger ``model``; its weights are
    in no text that could be had. At ``rate`` 0 the partner is frozen, in eval mode, and what is left is ``kd`` with it as the
    teacher. The weight of the term is the partner's, too, which Adam does not feel.
    """

    def __init__(self, pair, *, model: str | None = None, rate: float = 1.0):
        not_negative(rate=rate)
        super().__init__()
        self.rate, self.partner = rate, partner_of(pair, model).requires_grad_(rate > 0)

    def train(self, mode: bool = True) -> Mutual:
        """A frozen partner stays in eval mode."""
        super().train(mode)
        self.partner.train(mode and self.rate > 0)
        return self

    def forward(self, student, teacher, labels: Tensor, *, images: Tensor, temperature: float = 1.0) -> Tensor:
        """The sum of the student's and the partner's terms, nats per example."""
        positive(temperature=temperature)
        z_s, z_p = logits_of(student), logits_of(self.partner(images, maps=False))
        taught = tempered_kl(z_s, z_p.detach(), temperature)
        if not self.rate:
            return taught
        return taught + ce(z_p, None, labels) + tempered_kl(z_p, z_s.detach(), temperature)


@objectives.declare(
    name="bi_kd",
    kind="partners",
    needs="labels images",
    source="Bi-KD, Syd-J/Bi-KD@f512091a, TMLR 2025; bidirectional as BSD",
)
class BiKD(nn.Module):
    """Example by example, the network that gives the true class more probability teaches the other: ``CE(partner) + mean of
    KL(teaching || taught)``, T = 1. Beside ``ce``, which is the student's own.

    The released code differentiates the target of its KL as well, so that the surer network is also drawn to the other; that is
    ``through_targets=True``, the default as published. False teaches in one direction.
    """

    def __init__(self, pair, *, model: str | None = None, rate: float = 1.0, through_targets: bool = True):
        positive(rate=rate)
        super().__init__()
        self.rate, self.through_targets, self.partner = rate, through_targets, partner_of(pair, model)

    def forward(self, student, teacher, labels: Tensor, *, images: Tensor) -> Tensor:
        """Nats per example. Of soft labels the largest class says who teaches."""
        log_s, log_p = (
            F.log_softmax(z, dim=1) for z in (logits_of(student), logits_of(self.partner(images, maps=False)))
        )
        partner_teaches = target_of(log_p, hard(labels)) > target_of(log_s, hard(labels))

        def each(target: Tensor, taught: Tensor) -> Tensor:
            target = target if self.through_targets else target.detach()
            return (target.exp() * (target - taught)).sum(1)

        return ce(log_p, None, labels) + torch.where(partner_teaches, each(log_p, log_s), each(log_s, log_p)).mean()


@objectives.declare(
    name="lfme",
    kind="partners",
    needs="labels images domains",
    source="LFME, Chen et al. 2024, arXiv 2410.17020; liangchen527/LFME@d2afa3fc",
)
class LFME(nn.Module):
    """An expert for every source domain learns along, from its own domain's labels; the student's logits are drawn to the
    probabilities of the expert of each example's domain: ``sum of CE(expert) + mean squared difference``.

    Beside ``ce``, with ``sampling="balanced"`` as published, where each expert has as many examples. One with fewer than two in a
    batch neither learns nor teaches there. Logits and probabilities are of two kinds: the authors compare them so.
    """

    def __init__(self, pair, *, model: str | None = None, rate: float = 1.0):
        positive(rate=rate)
        super().__init__()
        self.rate, self.experts = rate, nn.ModuleList(partner_of(pair, model) for _ in range(pair.sources))

    def forward(self, student, teacher, labels: Tensor, *, images: Tensor, domains: Tensor) -> Tensor:
        """Nats per example of each expert's, and squared differences per logit."""
        z_s, count = logits_of(student), 0
        total = squared = z_s.new_zeros(())
        for expert, of_domain in zip(self.experts, domains.bool().T):
            own = of_domain.nonzero().squeeze(1)
            if len(own) < 2:
                continue
            z = logits_of(expert(images[own], maps=False))
            total = total + ce(z, None, labels[own])
            squared, count = squared + (z_s[own] - F.softmax(z, dim=1).detach()).square().sum(), count + z.numel()
        return total + squared / max(count, 1)


def grams(maps: Tensor) -> Tensor:
    """Inner products of channels over positions, (n, channels, channels), over channels times positions."""
    flat = maps.flatten(2)
    return flat @ flat.mT / flat[0].numel()


@objectives.declare(
    name="ccfp",
    kind="partners",
    needs="labels images student.maps",
    source="CCFP, Li et al. 2023, ICCV, arXiv 2307.12502; hackmebroo/CCFP@10b0dfc8",
)
class CCFP(nn.Module):
    """A partner whose styles are moved after every stage by learned numbers agrees with the student in logits while those numbers
    drive its maps away: ``meaning [MSE(z_s, z_p) + MSE(z_p, z_s)] + CE(partner) - apart sum ||Gram(x_s) - Gram(x_p)||``.

    Targets of both MSE, means over logits, are not differentiated; the last term trains the moving numbers alone, by a second
    forward of the partner, and is the norm over the whole batch, without a bound, as released. Beside ``ce``, which is the student's own. Differs
    from the release: four stages, not the stem's output; one step of one optimiser where it has three in turn; the student
    is deployed, where the release predicts with the partner. Needs networks whose stages are sequences, such as ResNets.
    """

    def __init__(self, pair, *, model: str | None = None, rate: float = 1.0):
        positive(rate=rate)
        super().__init__()
        self.rate, self.partner, self.moved = rate, partner_of(pair, model), nn.ModuleList()
        if not isinstance(self.partner, Stand):
            self.moved.extend(after_stages(self.partner, range(len(self.partner.stages)), "perturbed", Perturbed))
            ours, theirs = [m.shape[1] for m in pair.student.maps], [len(moved.gamma) for moved in self.moved]
            if ours != theirs:
                raise ValueError(
                    f"ccfp compares Gram matrices of channels, stage by stage; the student has {ours} of them, {model} {theirs}. Leave "
                    "out model, or take one of the same widths."
                )

    def forward(
        self, student, teacher, labels: Tensor, *, images: Tensor, meaning: float = 1.0, apart: float = 1.0
    ) -> Tensor:
        """The sum of all terms."""
        not_negative(meaning=meaning, apart=apart)
        z_s, z_p = logits_of(student), logits_of(self.partner(images, maps=False))
        alike = F.mse_loss(z_s, z_p.detach()) + F.mse_loss(z_p, z_s.detach())
        moving = {id(p) for p in self.moved.parameters()}
        still = {n: p.detach() for n, p in self.partner.named_parameters() if id(p) not in moving}
        maps = torch.func.functional_call(self.partner, still, (images,)).maps
        distances = [
            torch.linalg.vector_norm(grams(widened(s).detach()) - grams(p)) for s, p in zip(student.maps, maps)
        ]
        return meaning * alike + ce(z_p, None, labels) - apart * sum(distances)


@objectives.declare(
    name="pesf_kd",
    kind="partners",
    needs="teacher.pooled teacher labels",
    source="PESF-KD, Rao et al. 2023, arXiv 2205.15308; as the paper",
    weight=0.9,
)
class PESFKD(nn.Module):
    """``T^2 KL(softmax((z_t - A(f_t)) / T) || softmax(z_s / T)) + CE(z_t - A(f_t))``: an adapter A of the teacher's pooled feature is
    trained by both, so that the teacher becomes one that the student can follow.

    A is linear to the classes, then through ``hidden`` units and a ReLU back to them; its ``rate`` is the released 2e-5 beside a
    learning rate of 1e-3. As the paper: in the released code the student never meets the adapter, since it learns from the teacher's own
    logits with top and label swapped, and evaluation adds what training subtracts.
    """

    def __init__(self, pair, *, hidden: int = 32, rate: float = 0.02):
        counted(hidden=hidden)
        positive(rate=rate)
        super().__init__()
        features, classes = pooled_of(pair.teacher).shape[1], pair.classes
        self.rate = rate
        self.adapter = nn.Sequential(
            nn.Linear(features, classes), nn.Linear(classes, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def forward(self, student, teacher, labels: Tensor, *, temperature: float = 4.0) -> Tensor:
        """Nats per example."""
        positive(temperature=temperature)
        z_s, z_t = logit_pair(student, teacher)
        adapted = z_t - self.adapter(widened(teacher.pooled).detach())
        return tempered_kl(z_s, adapted, temperature) + ce(adapted, None, labels)

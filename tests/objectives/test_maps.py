"""Objectives on features and maps: against slow formulas where there are no published numbers, and their properties."""

import pytest
import torch
import torch.nn.functional as F

from tests.reference import features as slow
from tests.reference.objectives import cosine_distance as slow_cosine
from wakd_kit import objectives
from wakd_kit.models.tap import Output
from wakd_kit.objectives import Pair, combine
from wakd_kit.objectives.base import each_tensor
from wakd_kit.objectives.features import channels_normalised
from wakd_kit.objectives.relations import mean_squared_products

REGISTRY = objectives.objectives
KNOWN = {"labels", "teacher", "progress"}
# vl2v learns from a file: test_embeddings.py
FEATURES = [
    n for n in REGISTRY if REGISTRY.about(n).needs - KNOWN and "images" not in REGISTRY.about(n).needs and n != "vl2v"
]
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 0, 4])
INDEX = torch.arange(8)  # the batch is all there is to remember
DOMAINS = torch.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]

# what does not hold for every objective, and why
ORDERED = {"cc", "crd_memory", "irm"}  # neighbours in the batch; draws differ from row to row; halves of a domain
# labels or class centres decide; a target that is normalised; two embeddings, two heads or a projector of its own
ZERO_AT_TEACHER = {"at", "sp", "cc_paper", "pkt", "nst", "rkd", "prototypes", "qkv_relations"}


def outputs(
    *,
    seed=0,
    features=6,
    channels=(4, 6, 8, 6),
    side=8,
    parts=(),
    heads=(2, 4),
    blocks=2,
    dtype=torch.float64,
    scale=1.0,
):
    """An ``Output`` of 8 examples and 5 classes, maps of a pyramid, ``blocks`` of attention over 5 tokens with ``heads``, how many and how
    wide; leaves that want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return (scale * torch.randn(8, *shape, dtype=torch.float64, generator=generator)).to(dtype).requires_grad_()

    maps = tuple(leaf(c, side >> i, side >> i) for i, c in enumerate(channels))
    count, width = heads
    first = Output(leaf(5), leaf(features), maps, tuple(leaf(*shape) for shape in parts))
    return first._replace(attention=tuple(leaf(3, count, 5, width) for _ in range(blocks)))


ONE_ARCHITECTURE = {"miro"}
PARTS = {"simkd": ((7, 1, 1),), "dho": ((5,), (5,))}


def pair(name, **settings):
    """Student and teacher of other channel counts and, but for a deployed part, other sizes; of one architecture for some."""
    shapes = {"features": 9, "channels": (5, 6, 10, 7), "side": 16, "heads": (4, 3), "blocks": 3}
    return outputs(parts=PARTS.get(name, ()), **settings), outputs(
        seed=1, **({} if name in ONE_ARCHITECTURE else shapes), **settings
    )


def built(spec, student, teacher):
    """The combined objective at the middle of a run of 100 steps, in the precision of the student."""
    spec = {"name": spec, "schedule": None} if isinstance(spec, str) else spec
    combined = combine(spec).prepare(student, teacher, steps=100).to(student.logits.dtype)
    combined.learn_examples(LABELS)
    combined.learn_centres(teacher.pooled.detach(), LABELS)
    return combined


def loss_of(combined, student, teacher, labels=LABELS, *, step=50, index=INDEX, domains=DOMAINS):
    """The total, with the same draws at every call of a step."""
    torch.manual_seed(step)
    return combined(student, teacher, labels, step=step, index=index, domains=domains)[0]


def leaves(output):
    return [output.logits, output.pooled, *output.maps, *output.parts, *output.attention]


def gradients(output):
    return [leaf.grad for leaf in leaves(output) if leaf.grad is not None]


# ---- against loops over examples, channels and positions


def test_hints_are_squared_differences_of_a_projected_map():
    student, teacher = pair("fitnet")
    for name, normalised in (("fitnet", True), ("fitnet_raw", False)):
        combined = built({"name": name, "stages": [1, -1]}, student, teacher)
        expected = 0.0
        for projector, stage in zip(combined.parts["0"].projected.projectors, (1, -1)):
            target = teacher.maps[stage]
            ours = projector(student.maps[stage])
            expected += slow.hint(
                ours.tolist(), F.avg_pool2d(target, target.shape[2] // ours.shape[2]).tolist(), normalised=normalised
            )
        assert combined(student, teacher, None)[1][name].item() == pytest.approx(expected, abs=1e-10)


def test_a_normalised_target_makes_hints_of_any_teacher_alike():
    student, small = outputs(), outputs(seed=1)
    large = small._replace(maps=tuple(1000 * m + 50 for m in small.maps))
    for name, most in (("fitnet", 1.01), ("fitnet_raw", float("inf"))):
        near, far = (built(name, student, t)(student, t, None)[1][name] for t in (small, large))
        assert far / near <= most
        assert name == "fitnet" or far > 1e5 * near
    assert channels_normalised(large.maps[1]).mean(1).abs().max() < 1e-9


def test_relations_without_published_numbers_equal_their_formulas():
    student, teacher = pair("prototypes")
    ours, theirs, labels = student.pooled.tolist(), teacher.pooled.tolist(), LABELS.tolist()
    for name, settings, expected in (
        ("cc_paper", {}, slow.cc_paper(ours, theirs, 0.4, 2)),
        ("cc_paper", {"gamma": 1.5, "order": 4}, slow.cc_paper(ours, theirs, 1.5, 4)),
        ("prototypes", {}, slow.prototypes(ours, theirs, labels)),
    ):
        value = objectives.get(name)(student, teacher, LABELS, **settings)
        assert value.item() == pytest.approx(expected, abs=1e-10)


def embedded(part, student, teacher):
    return part.ours(student.pooled).tolist(), part.theirs(teacher.pooled).tolist()


@pytest.mark.parametrize("positions", [1, 2, 40])  # by positions, and by channels
def test_mean_squared_products_equal_a_loop_over_channels(positions):
    generator = torch.Generator().manual_seed(positions)
    a, b = (torch.randn(3, c, positions, dtype=torch.float64, generator=generator) for c in (4, 9))
    products = [(x @ y) ** 2 for n in range(3) for x in a[n] for y in b[n]]
    torch.testing.assert_close(mean_squared_products(a, b), torch.stack(products).mean(), rtol=1e-12, atol=0)


def test_cosine_is_the_angle_of_pooled_features_and_projects_only_where_widths_differ():
    student, teacher = pair("cosine")
    cosine = built("cosine", student, teacher)
    projected = cosine.parts["0"].projector(student.pooled).tolist()
    expected = slow_cosine(projected, teacher.pooled.tolist())
    assert cosine(student, teacher, LABELS)[1]["cosine"].item() == pytest.approx(expected, abs=1e-10)
    alike = outputs(seed=1)
    same = built("cosine", student, alike)
    assert not list(same.parameters())
    expected = slow_cosine(student.pooled.tolist(), alike.pooled.tolist())
    assert same(student, alike, LABELS)[1]["cosine"].item() == pytest.approx(expected, abs=1e-10)
    assert same(alike, alike, LABELS)[1]["cosine"].item() == pytest.approx(0, abs=1e-12)


def test_contrast_in_the_batch_equals_its_formula():
    student, teacher = pair("crd")
    crd = built({"name": "crd", "temperature": 0.2}, student, teacher)
    expected = slow.info_nce(*embedded(crd.parts["0"], student, teacher), LABELS.tolist(), 0.2)
    assert crd(student, teacher, LABELS)[1]["crd"].item() == pytest.approx(expected, abs=1e-10)

    settings = {"global_weight": 0.7, "local_weight": 0.3, "epsilon": 0.2, "iterations": 7}
    wcord = built({"name": "wcord_in_batch", **settings}, student, teacher).eval()
    expected = slow.wcord(*embedded(wcord.parts["0"], student, teacher), LABELS.tolist(), **settings)
    assert wcord(student, teacher, LABELS)[1]["wcord_in_batch"].item() == pytest.approx(expected, abs=1e-10)


def test_likelihoods_are_of_what_was_drawn_of_the_memory_and_not_of_all_of_it():
    student, teacher = pair("crd_memory")
    part = built({"name": "crd_memory", "negatives": 3}, student, teacher).parts["0"]
    part.learn_examples(LABELS.repeat(5))
    shapes = []

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            shapes.extend([tuple(args[0].shape)] if function is torch.Tensor.exp else [])
            return function(*args, **(kwargs or {}))

    with Watched():
        part(student, teacher, LABELS, index=INDEX)
    assert shapes == [(8, 4), (8, 4)]


def test_contrast_has_nothing_to_tell_apart_in_a_batch_of_one_class():
    student, teacher = pair("crd")
    assert built("crd", student, teacher)(student, teacher, torch.zeros(8, dtype=torch.long))[0] == 0


def test_the_memory_draws_examples_of_other_classes_alike():
    student, teacher = pair("crd_memory")
    part = built({"name": "crd_memory", "negatives": 20_000}, student, teacher).parts["0"]
    drawn = part._of_other_classes(LABELS)
    for i, label in enumerate(LABELS.tolist()):
        counts = drawn[i].bincount(minlength=8)
        others = label != LABELS
        assert counts[~others].sum() == 0
        expected = 20_000 / others.sum()
        assert (counts[others] - expected).abs().max() < 5 * expected**0.5


def test_the_memory_follows_the_embeddings_it_is_shown():
    student, teacher = pair("crd_memory")
    combined = built({"name": "crd_memory", "momentum": 0.0, "negatives": 4}, student, teacher)
    part, ours = combined.parts["0"], combined.parts["0"].ours(student.pooled)
    before = part.memory_ours.clone()
    loss_of(combined.eval(), student, teacher)
    assert torch.equal(part.memory_ours, before) and part.constants.isnan().all(), "outside training it stays"
    loss_of(combined.train(), student, teacher)
    torch.testing.assert_close(part.memory_ours, F.normalize(ours, dim=1).detach())
    constants = part.constants.clone()
    loss_of(combined, student, teacher)
    assert constants.isfinite().all() and torch.equal(part.constants, constants)


def test_ofa_sums_every_head_with_an_epsilon_of_its_own():
    student, teacher = pair("ofa")
    ofa = built({"name": "ofa", "epsilon": [1.0, 1.5, 2.0], "stages": [0, 3]}, student, teacher).eval()
    heads = ofa.parts["0"].heads
    logits = [heads[0](student.maps[0]), heads[1](student.maps[3]), student.logits]
    expected = slow.ofa([z.tolist() for z in logits], teacher.logits.tolist(), LABELS.tolist(), [1.0, 1.5, 2.0])
    assert ofa(student, teacher, LABELS)[1]["ofa"].item() == pytest.approx(expected, abs=1e-10)
    assert not any("Block" in type(m).__name__ for m in heads.modules()), "a pyramid has convolutional heads"


def test_ofa_reads_stages_of_one_resolution_through_a_transformer_block():
    flat = outputs()._replace(maps=tuple(outputs(seed=i, channels=(6,), side=4).maps[0] for i in range(4)))
    heads = built("ofa", flat, outputs(seed=1)).parts["0"].heads
    assert len(heads) == 4 and all(hasattr(head, "block") for head in heads)


def test_kdpp_pulls_towards_class_centres_of_the_teacher():
    student, teacher = pair("kdpp")
    combined = built("kdpp", student, teacher)
    centres = [
        slow.columns(teacher.pooled.tolist(), LABELS.tolist(), y) if y in LABELS else [0.0] * 9 for y in range(5)
    ]
    torch.testing.assert_close(combined.parts["0"].centres, torch.tensor(centres, dtype=torch.float64))
    projected = combined.parts["0"].projector(student.pooled)
    expected = slow.norm_and_direction(projected.tolist(), teacher.pooled.tolist(), centres, LABELS.tolist())
    assert combined(student, teacher, LABELS)[1]["kdpp"].item() == pytest.approx(expected, abs=1e-10)


def test_kdpp_without_centres_is_no_number():
    student, teacher = pair("kdpp")
    assert combine("kdpp").prepare(student, teacher, steps=9).double()(student, teacher, LABELS)[0].isnan()


@pytest.mark.parametrize("orthogonal_map", [None, "matrix_exp", "cayley", "householder"])
def test_vkd_keeps_the_inner_products_of_a_narrower_student(orthogonal_map):
    student, teacher = pair("vkd")
    projector = built({"name": "vkd", "orthogonal_map": orthogonal_map}, student, teacher).parts["0"].projector
    before, after = student.pooled, projector(student.pooled)
    torch.testing.assert_close(after @ after.T, before @ before.T, rtol=0, atol=1e-5)  # built in float32


def test_miro_is_a_gaussian_around_the_network_that_the_student_began_as():
    student, teacher = outputs(), outputs(seed=1)
    combined = built({"name": "miro", "variance": 0.3}, student, teacher)
    expected = sum(slow.miro(s.tolist(), t.tolist(), 0.3) for s, t in zip(student.maps, teacher.maps))
    assert combined(student, teacher, None)[1]["miro"].item() == pytest.approx(
        expected, rel=1e-6
    )  # softplus in float32
    with pytest.raises(ValueError, match="that it began as; at stage 0 maps are 4x8x8 of the student and 5x16x16"):
        built("miro", *pair("vid"))


def test_vid_learns_how_sure_it_can_be():
    student, teacher = pair("vid")
    combined = built("vid", student, teacher)
    optimiser = torch.optim.Adam(combined.parameters(), lr=0.02)
    first = combined(student, teacher, None)[0].item()
    for _ in range(150):
        optimiser.zero_grad()
        loss = combined(student, teacher, None)[0]
        loss.backward()
        optimiser.step()
    noise = sum((1 + teacher.maps[i].detach().var().log()).item() / 2 for i in range(4))
    assert loss.item() < noise < first


def test_xded_leaves_examples_alone_that_are_alone_in_their_class():
    student = outputs()
    objectives.xded(student, None, LABELS).backward()
    assert student.logits.grad[7].abs().max() < 1e-12 < 1e-3 < student.logits.grad[:7].abs().min(0).values.max()


@pytest.mark.parametrize("settings", [{}, {"heads": 2, "layer": 0}, {"layer": 1}])
def test_relations_of_queries_keys_and_values_equal_loops_over_tokens(settings):
    student, teacher = pair("qkv_relations")
    value = objectives.get("qkv_relations")(student, teacher, **settings)
    theirs, heads = teacher.attention[settings.get("layer", -1)], settings.get("heads", 4)
    expected = slow.qkv_relations(student.attention[-1].tolist(), theirs.tolist(), heads)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_relations_say_which_heads_layers_and_tokens_fit():
    student, teacher = pair("qkv_relations")
    relations = objectives.get("qkv_relations")
    with pytest.raises(ValueError, match=r"divides the widths of both, 8 and 12; got 3. Take one of \[1, 2, 4\]"):
        relations(student, teacher, heads=3)
    odd = teacher._replace(attention=(teacher.attention[0][:, :, :3],))
    with pytest.raises(ValueError, match=r"widths of both, 8 and 9; got the teacher's 3. Take one of \[1\]"):
        relations(student, odd)
    for layer in (3, 1.0):
        with pytest.raises(ValueError, match="counts the teacher's 3 blocks, from 0 or from the end; got"):
            relations(student, teacher, layer=layer)
    for heads in (-1, 2.0):
        with pytest.raises(ValueError, match="heads counts relation heads: a whole number >= 0; got"):
            combine({"name": "qkv_relations", "heads": heads})
    fewer = teacher._replace(attention=tuple(joint[:, :, :, :4] for joint in teacher.attention))
    for name in ("qkv_relations", "a2d"):
        with pytest.raises(ValueError, match=f"{name} compares tokens one by one; the student has 5, the teacher 4"):
            combine(name).prepare(student, fewer, steps=1)
    stages = teacher._replace(attention=(*teacher.attention, fewer.attention[0]))  # of a pyramid
    with pytest.raises(ValueError, match="a2d compares tokens one by one; the student has 5, the teacher 4 and 5"):
        combine("a2d").prepare(student, stages, steps=1)


def test_every_head_of_the_teacher_is_imitated_by_a_mixture_of_the_students():
    student, teacher = pair("a2d")
    combined = built("a2d", student, teacher)
    align = combined.parts["0"].align
    assert align.weight.shape == (12, 4, 1, 1)
    blocks = [[joint.tolist() for joint in each.attention] for each in (student, teacher)]
    expected = slow.a2d(*blocks, align.weight.flatten(1).tolist(), align.bias.tolist())
    assert combined(student, teacher, None)[1]["a2d"].item() == pytest.approx(expected, abs=1e-12)


# ---- what holds for all of them


@pytest.mark.parametrize("name", FEATURES)
def test_only_the_student_is_trained(name):
    student, teacher = pair(name)
    combined = built(name, student, teacher)
    loss = loss_of(combined, student, teacher)
    loss.backward()
    assert loss.isfinite() and not gradients(teacher)
    assert gradients(student) and all(g.isfinite().all() for g in gradients(student))
    assert sum(g.abs().sum() for g in gradients(student)) > 0
    unused = [n for n, p in combined.named_parameters() if p.grad is None]
    assert not unused, "every parameter of an objective is trained by it"


@pytest.mark.parametrize("name", [n for n in FEATURES if not REGISTRY.about(n).of_pair])
def test_called_by_itself_it_trains_no_teacher_either(name):
    student, teacher = pair(name)
    of_batch = {"domains": DOMAINS} if "domains" in REGISTRY.about(name).needs else {}
    objectives.get(name)(student, teacher, LABELS, **of_batch).backward()
    assert gradients(student) and not gradients(teacher)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("scale", [1e4, 0.0])
def test_large_and_empty_features_give_finite_losses_and_gradients(name, scale):
    student, teacher = pair(name, dtype=torch.float32, scale=scale)
    loss = loss_of(built(name, student, teacher), student, teacher)
    loss.backward()
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients(student))


@pytest.mark.parametrize("name", FEATURES)
def test_the_order_of_the_batch_matters_only_where_it_is_said(name):
    student, teacher = pair(name)
    combined, order = built(name, student, teacher).eval(), torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    turned = [each_tensor(o, lambda t: t[order]) for o in (student, teacher)]
    before, after = (
        loss_of(combined, student, teacher),
        loss_of(combined, *turned, LABELS[order], index=order, domains=DOMAINS[order]),
    )
    assert (after.item() == pytest.approx(before.item(), rel=1e-9)) is (name not in ORDERED)


@pytest.mark.parametrize("name", FEATURES)
def test_losses_are_float32_under_autocast_to_bfloat16(name):
    student, teacher = pair(name, dtype=torch.bfloat16)
    combined = built(name, outputs(parts=PARTS.get(name, ()), dtype=torch.float32), teacher).eval()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(combined, student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32 and gradients(student)[0].dtype == torch.bfloat16
    wide = [
        Output(*(tuple(t.detach().float() for t in v) if isinstance(v, tuple) else v.detach().float() for v in o))
        for o in (student, teacher)
    ]
    assert loss.item() == loss_of(combined, *wide).item()


@pytest.mark.parametrize("name", sorted(ZERO_AT_TEACHER))
def test_it_is_zero_at_the_teacher_and_larger_elsewhere(name):
    _, teacher = pair(name)
    student = Output(*(tuple(t.detach().clone() for t in v) if isinstance(v, tuple) else v.detach() for v in teacher))
    objective = objectives.get(name)
    assert abs(objective(student, teacher, LABELS).item()) < 1e-9
    away = outputs(seed=3, features=9, channels=(5, 6, 10, 7), side=16)
    assert objective(away, teacher, LABELS).item() > 1e-5


@pytest.mark.parametrize("name", [n for n in FEATURES if REGISTRY.about(n).of_pair])
def test_parameters_and_state_are_resumed_bit_for_bit(name):
    student, teacher = pair(name, dtype=torch.float32)

    def begin():
        combined = built(name, student, teacher)
        return combined, torch.optim.Adam(combined.parameters(), lr=0.01)

    def train(combined, optimiser, steps):
        for step in steps:
            optimiser.zero_grad()
            loss = loss_of(combined, student, teacher, step=step)
            loss.backward()
            optimiser.step()
        return loss

    whole, first, again = begin(), begin(), begin()
    expected = train(*whole, range(1, 7))
    train(*first, range(1, 4))
    again[0].load_state_dict(first[0].state_dict())
    again[1].load_state_dict(first[1].state_dict())
    assert torch.equal(train(*again, range(4, 7)), expected)


# ---- what cannot be


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "fitnet", "stages": [4]}, "fitnet asks for stage 4; there are 4, from 0 to 3."),
        ({"name": "fitnet", "stages": 1}, "stages of fitnet is a list of whole numbers; got 1."),
        ({"name": "fitnet_raw", "stages": []}, "stages of fitnet_raw is a list of whole numbers; got []."),
        ({"name": "ofa", "epsilon": [1] * 6}, "epsilon of ofa is one number, or 5: one a stage and the last; got 6."),
        ({"name": "ofa", "epsilon": [-1.0]}, "epsilon is a positive number; got -1.0."),
        ({"name": "cc_paper", "kernel": "gausian"}, "Unknown kernel of cc_paper 'gausian'. Did you mean 'gaussian'?"),
        ({"name": "vid", "variance": 0}, "variance is a number above 1e-5, which is always added; got 0."),
        ({"name": "crd", "dimensions": 2.5}, "dimensions is a whole number >= 1; got 2.5."),
        ({"name": "crd_memory", "momentum": 1}, "momentum of crd_memory is from 0 up to, not including, 1; got 1."),
        ({"name": "at", "power": 0.5}, "power of at is a number >= 1; got 0.5."),
        ({"name": "ofa", "stages": 2}, "stages of ofa is a list of whole numbers; got 2."),
        ({"name": "ofa", "epsilon": "1.5"}, "epsilon is a positive number; got '1.5'."),
        ({"name": "mlkd", "temperatures": ["4"]}, "temperatures is a positive number; got '4'."),
        ({"name": "rkd", "angle": -1}, "angle is a number >= 0; got -1."),
        ({"name": "reviewkd", "width": 0}, "width is a whole number >= 1; got 0."),
        ({"name": "simkd", "factors": 2}, "Unknown setting of objective 'simkd' 'factors'. Did you mean 'factor'?"),
        ({"name": "kdpp", "weight": 0}, "weights sum to zero"),
    ],
)
def test_settings_that_cannot_be_are_a_sentence_before_anything_is_built(spec, sentence):
    with pytest.raises(ValueError) as problem:
        combine(spec)
    assert sentence in str(problem.value)


def test_a_list_for_the_stages_is_judged_by_the_student_that_has_them():
    combined = combine({"name": "ofa", "epsilon": [1, 1, 1, 2]})
    student = Output(
        torch.zeros(2, 3), torch.zeros(2, 4), tuple(torch.zeros(2, 4, size, size) for size in (8, 4, 2, 1))
    )
    combined.prepare(student._replace(maps=student.maps[1:]), torch.zeros(2, 3), steps=1)
    with pytest.raises(ValueError, match="epsilon of ofa is one number, or 5: one a stage and the last; got 4"):
        combine({"name": "ofa", "epsilon": [1, 1, 1, 2]}).prepare(student, torch.zeros(2, 3), steps=1)


@pytest.mark.parametrize("name", [n for n in FEATURES if not isinstance(REGISTRY.get(n), type)])
def test_bare_logits_in_place_of_features_are_a_sentence(name):
    if not {"pooled", "maps"} & REGISTRY.about(name).needs:
        pytest.skip("reads neither")
    logits = torch.randn(8, 5)
    with pytest.raises(ValueError, match="Pass what a Tap gives"):
        REGISTRY.get(name)(logits, logits, LABELS)


@pytest.mark.parametrize("name", FEATURES)
def test_inputs_that_are_not_there_are_a_sentence(name):
    about = REGISTRY.about(name)
    student, teacher = pair(name)
    for what, empty in (("maps", ()), ("pooled", torch.zeros(0)), ("parts", ())):
        for who, given in (("student", student), ("teacher", teacher)):
            if about.reads(what, who):
                both = {"student": student, "teacher": teacher, who: given._replace(**{what: empty})}
                with pytest.raises(ValueError, match=rf"read {what} of the {who}, whose output has none"):
                    combine(name).prepare(both["student"], both["teacher"], steps=9)
    if "labels" in about.needs:
        with pytest.raises(ValueError, match="need labels, which is None; pass labels"):
            loss_of(built(name, student, teacher), student, teacher, None)
    for what in {"index", "domains"} & about.needs:
        with pytest.raises(ValueError, match=f"need {what}, which is None; pass {what}"):
            loss_of(built(name, student, teacher), student, teacher, **{what: None})
    if "teacher" in about.needs:
        with pytest.raises(ValueError, match="need teacher, which is None; pass teacher"):
            combine(name).prepare(student, None, steps=9)


@pytest.mark.parametrize("name", ["ofa", "dho"])
def test_a_teacher_of_other_classes_is_a_sentence(name):
    student, teacher = pair(name)
    with pytest.raises(ValueError, match=r"Teacher gives 9 classes, student 5\. Was the teacher trained on another"):
        built(name, student, teacher._replace(logits=torch.zeros(8, 9, dtype=torch.float64)))


@pytest.mark.parametrize("name", ["at", "nst", "sp", "rkd", "pkt", "cc_paper", "prototypes"])
def test_what_has_nothing_to_read_is_a_sentence(name):
    logits = torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"This objective reads (stage maps|pooled features)"):
        objectives.get(name)(Output(logits, None), logits, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("name", ["ce", "dkd", "xded", "margin_mse"])
def test_labels_of_any_integer_type_are_the_same(name):
    logits, labels = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 1, 4])
    small = objectives.get(name)(*logits, labels.to(torch.int32))
    assert torch.equal(small, objectives.get(name)(*logits, labels))


def test_a_variance_of_any_size_is_where_vid_starts():
    student, teacher = (Output(torch.zeros(2, 3), None, (torch.zeros(2, 3, 2, 2),)) for _ in range(2))
    for variance in (1e-4, 5.0, 1000.0):
        (stage,) = objectives.VID(Pair(student, teacher), variance=variance).stages
        assert (F.softplus(stage.scale) + stage.epsilon).tolist() == pytest.approx([variance] * 3, rel=1e-3)

"""How a list of objectives is checked, summed, scheduled, built for two models and resumed."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.reference import objectives as slow
from wakd_kit import objectives
from wakd_kit.models.build import Output
from wakd_kit.names import UnknownName
from wakd_kit.objectives import CTKD, TAID, Schedule, ce, combine, kd

REGISTRY = objectives.objectives


@pytest.fixture
def batch():
    """Student and teacher logits (8, 7) in float64, and labels."""
    golden = np.load(Path(__file__).parent.parent / "golden" / "objectives.npz")
    student = torch.tensor(golden["in/logits_s"], requires_grad=True)
    return student, torch.tensor(golden["in/logits_t"]), torch.tensor(golden["in/labels"])


# ---- weighted lists


def test_registering_leaves_a_function_as_it_is():
    assert objectives.get("kd") is kd and objectives.get("ce") is ce and REGISTRY.get("taid") is TAID
    assert REGISTRY.about("kd").needs == {"teacher"}
    assert isinstance(objectives.get("ctkd"), CTKD) and objectives.get("ctkd") is not objectives.get("ctkd")


def test_an_objective_defined_again_takes_its_own_place_and_nobody_elses(monkeypatch):
    """As in a notebook, whose cells are run again, and as README says: ``wk.objectives.declare``."""
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY._entries))
    monkeypatch.setattr(REGISTRY, "_about", dict(REGISTRY._about))
    cell = """@objectives.declare(kind="logits", needs="teacher", source="a notebook")
def told_again(student, teacher, labels=None, *, {setting}=1.0):
    return {setting} * student.mean()"""
    for setting in ("first", "second"):
        namespace = {"objectives": objectives, "__name__": "__main__"}
        exec(cell.format(setting=setting), namespace)
        assert objectives.get("told_again") is namespace["told_again"]
        assert list(REGISTRY.about("told_again").called_with) == [setting]
    for name, module in (("told_again", "somewhere.else"), ("kd", "__main__")):
        before = REGISTRY.get(name)
        with pytest.raises(
            ValueError, match=f"objective '{name}' is registered twice, in .* and in {module}; give one"
        ):
            exec(
                cell.format(setting="third").replace("told_again", name), {"objectives": objectives, "__name__": module}
            )
        assert REGISTRY.get(name) is before


def test_a_list_is_the_weighted_sum_of_its_terms(batch):
    combined = combine([{"name": "ce", "weight": 0.1}, {"name": "kd", "temperature": 4, "weight": 0.9}])
    total, terms = combined(*batch)
    first, second = ce(*batch), kd(*batch, temperature=4)
    assert total.item() == pytest.approx(0.1 * first.item() + 0.9 * second.item(), abs=1e-12)
    assert terms == {"ce": first, "kd": second} and not any(t.requires_grad for t in terms.values())
    total.backward()
    assert batch[0].grad.abs().sum() > 0


def test_nothing_is_added_to_what_is_listed(batch):
    assert combine("kd")(*batch)[0].item() == kd(*batch).item()
    assert combine({"name": "kd", "weight": 2})(*batch)[0].item() == 2 * kd(*batch).item()


def test_specs_are_complete_so_that_a_run_records_every_setting():
    assert combine(["ce", {"name": "kd", "weight": 2}, "ctkd"]).specs == [
        {"name": "ce", "weight": 1.0, "label_smoothing": 0.0},
        {"name": "kd", "weight": 2.0, "temperature": 5.0, "kind": "forward"},
        {
            "name": "ctkd",
            "weight": 0.9,
            "lowest": 1.0,
            "span": 20.0,
            "reversal": 1.0,
            "schedule": {"of": "reversal", "first": 0.0, "begin": 0, "end": 10 / 240, "shape": "cosine"},
        },
    ]


def test_one_objective_at_two_settings_has_two_labels(batch):
    combined = combine([{"name": "kd", "temperature": 1}, {"name": "kd", "temperature": 4}])
    assert combined.labels == ["kd[temperature=1]", "kd[temperature=4]"]
    terms = combined(*batch)[1]
    assert [t.item() for t in terms.values()] == [kd(*batch, temperature=1).item(), kd(*batch, temperature=4).item()]


def test_a_list_knows_what_it_needs():
    assert combine("kd").needs("teacher") and not combine("kd").needs("labels")
    assert combine("ce").needs("labels") and not combine("ce").needs("teacher")
    assert combine("taid").needs("progress") and not combine(["ce", "kd"]).needs("maps")


def test_combining_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    combine("rs_kd").prepare(torch.zeros(2, 3), torch.zeros(2, 3), steps=4, seed=7)
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [
        ([], "No objective given"),
        ([{"temperature": 4}], 'Every objective needs a "name"'),
        (
            [{"name": "kd", "temprature": 4}],
            "Unknown setting of objective 'kd' 'temprature'. Did you mean 'temperature'?",
        ),
        ([{"name": "kd", "temperature": "4"}], "Setting 'temperature' of objective 'kd' is a number; got '4'."),
        ([{"name": "kd", "temperature": 0}], "temperature is a positive number; got 0."),
        ([{"name": "kd", "temperature": math.nan}], "temperature is a positive number; got nan."),
        ([{"name": "kd", "kind": "reversed"}], "Unknown kind of kd 'reversed'. Did you mean 'reverse'?"),
        ([{"name": "ce", "label_smoothing": 1.5}], "label_smoothing is from 0 up to, not including, 1; got 1.5."),
        ([{"name": "dkd", "beta": -1}], "beta is a number >= 0; got -1."),
        ([{"name": "rs_kd", "draws": 2.5}], "draws is a whole number >= 1; got 2.5."),
        ([{"name": "mlkd", "temperatures": 4}], "temperatures is a list of positive numbers; got 4."),
        ([{"name": "taid", "start": 1.0}], "taid goes from start to a larger end within 0 and 1; got 1.0 and 1.0."),
        ([{"name": "ctkd", "span": 0}], "span is a positive number; got 0."),
        (
            [{"name": "uld", "standardise": "no"}],
            "Setting 'standardise' of objective 'uld' is True or False; got 'no'.",
        ),
        ([{"name": "bi_kd", "through_targets": "no"}], "is True or False; got 'no'."),
        ([{"name": "pesf_kd", "hidden": 16.5}], "hidden is a whole number >= 1; got 16.5."),
        ([{"name": "mutual", "model": "nope"}], "Unknown model 'nope'."),
        ([{"name": "kd", "weight": -1}], "The weight of objective 'kd' is a number >= 0; got -1."),
        ([{"name": "kd", "weight": True}], "is a number >= 0; got True."),
        ([{"name": "kd", "weight": 0}], "weights sum to zero"),
        (["kd", {"name": "kd", "temperature": 5.0}], "kd[temperature=5.0,kind=forward] is listed twice"),
        ([{"name": "kd", "schedule": 0.1}], "The schedule of objective 'kd' is a dictionary such as"),
        (
            [{"name": "kd", "schedule": {"ends": 1}}],
            "Unknown schedule key of objective 'kd' 'ends'. Did you mean 'end'?",
        ),
        ([{"name": "kd", "schedule": {"of": ["x"]}}], "is the name of a setting, or weight; got ['x']."),
        ([{"name": "kd", "schedule": {"of": "kind"}}], "Unknown setting to schedule of objective 'kd' 'kind'."),
        (
            [{"name": "gated_kd", "schedule": {"of": "k", "first": 3}}],
            "k of objective 'gated_kd' is a whole number, 10, and those are counts, which do not move.",
        ),
        ([{"name": "ctkd", "schedule": {"of": "lowest"}}], "Unknown setting to schedule of objective 'ctkd' 'lowest'."),
        (
            [{"name": "kd", "schedule": {"shape": "cosin"}}],
            "Unknown shape of a schedule 'cosin'. Did you mean 'cosine'?",
        ),
        (
            [{"name": "kd", "schedule": {"first": -1}}],
            "first in the schedule of objective 'kd' is a number >= 0; got -1.",
        ),
        ([{"name": "kd", "schedule": {"end": 20.0}}], "is a step (int) or a share of the run (float <= 1); got 20.0."),
        ([{"name": "kd", "schedule": {"begin": 9, "end": 9}}], "A schedule ends after it begins; got begin=9, end=9."),
        ([{"name": "kd", "schedule": {"of": "temperature"}}], "temperature is a positive number; got 0.0."),
    ],
)
def test_lists_that_cannot_be_trained_are_a_sentence(specs, sentence):
    with pytest.raises(ValueError) as problem:
        combine(specs)
    assert sentence in str(problem.value)


def test_an_unknown_objective_is_told_the_nearest():
    with pytest.raises(UnknownName) as problem:
        combine("kdd")
    assert str(problem.value).startswith("Unknown objective 'kdd'. Did you mean 'kd'?")


# ---- schedules


@pytest.mark.parametrize("step", [1, 7, 20, 21, 240])
def test_schedules_are_those_of_the_published_trainers(step):
    assert Schedule(end=20).value(8.0, step, 240) == pytest.approx(8.0 * slow.warm_up(step, 20))
    curriculum = Schedule(**combine("ctkd").specs[0]["schedule"])
    assert curriculum.value(1.0, step, 240) == pytest.approx(-slow.cosine_decay(step, 10))


def test_shares_of_the_run_are_steps_of_it():
    assert [Schedule(begin=0.25, end=0.75).value(1.0, s, 8) for s in range(1, 9)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert Schedule(first=3.0, begin=2, end=4).value(1.0, 3, 8) == 2.0
    assert Schedule(end=0.01).value(1.0, 1, 8) == 1.0  # a warm-up shorter than a step


def test_a_step_and_a_share_that_end_before_they_begin_are_a_sentence(batch):
    combined = combine({"name": "kd", "schedule": {"begin": 0.9, "end": 10}})
    with pytest.raises(ValueError, match=r"begin=0\.9 and end=10 are steps 540 and 10 of 600"):
        combined.prepare(*batch[:2], steps=600)
    assert combined.prepare(*batch[:2], steps=11)(*batch, step=10)[0] > 0  # from step 9 on


def test_a_scheduled_weight_moves_and_the_logged_term_does_not(batch):
    combined = combine([{"name": "ce"}, {"name": "kd", "weight": 2.0, "schedule": {"end": 0.5}}])
    combined.prepare(*batch[:2], steps=8)
    for step, weight in ((1, 0.5), (4, 2.0), (8, 2.0)):
        total, terms = combined(*batch, step=step)
        assert total.item() == pytest.approx(terms["ce"].item() + weight * terms["kd"].item(), abs=1e-12)
        assert terms["kd"].item() == kd(*batch).item()


def test_a_setting_can_be_scheduled_and_a_weight_may_end_at_zero(batch):
    fading = {"name": "kd", "weight": 0.0, "schedule": {"first": 1.0}}
    cooling = {"name": "dkd", "temperature": 1.0, "schedule": {"of": "temperature", "first": 5.0}}
    combined = combine([fading, cooling]).prepare(*batch[:2], steps=4)
    total, terms = combined(*batch, step=1)
    assert terms["dkd"].item() == pytest.approx(objectives.dkd(*batch, temperature=4.0).item(), abs=1e-12)
    assert total.item() == pytest.approx(0.75 * kd(*batch).item() + terms["dkd"].item(), abs=1e-12)


def test_a_schedule_of_ones_own_can_be_taken_away(batch):
    assert "schedule" not in combine({"name": "ctkd", "schedule": None}).specs[0]
    assert combine({"name": "ctkd", "schedule": None})(*batch)[0].isfinite()


@pytest.mark.parametrize("spec", [{"name": "kd", "schedule": {"end": 9}}, {"name": "ctkd"}, {"name": "taid"}])
def test_what_changes_over_the_run_asks_for_the_step(batch, spec):
    with pytest.raises(ValueError, match="changes over the run: call prepare"):
        combine(spec)(*batch)
    with pytest.raises(ValueError, match="pass step= with every batch"):
        combine(spec).prepare(*batch[:2], steps=9)(*batch)


# ---- parameters and state


def test_state_and_parameters_are_resumed_bit_for_bit(batch):
    teacher, labels = batch[1].float(), batch[2]

    def begin():
        student = nn.Parameter(batch[0].detach().float())
        combined = combine(["ctkd", {"name": "taid", "alpha": 0.3}]).prepare(teacher, teacher, steps=12)
        return student, combined, torch.optim.Adam([student, *combined.parameters()], lr=0.05)

    def train(student, combined, optimiser, steps):
        for step in steps:
            optimiser.zero_grad()
            total, terms = combined(student, teacher, labels, step=step)
            total.backward()
            optimiser.step()
        return terms

    whole = begin()
    expected = train(*whole, range(1, 13))
    first = begin()
    train(*first, range(1, 6))
    saved = [first[0].detach().clone(), first[1].state_dict(), first[2].state_dict()]
    student, combined, optimiser = begin()
    student.data.copy_(saved[0])
    combined.load_state_dict(saved[1])
    optimiser.load_state_dict(saved[2])
    assert train(student, combined, optimiser, range(6, 13)) == expected
    assert expected.keys() == {"ctkd", "ctkd/temperature", "taid", "taid/t"}
    assert expected["ctkd/temperature"] != pytest.approx(1 + 20 / (1 + math.exp(-1))) and expected["taid/t"] > 0.4


def test_taid_stays_where_it_is_outside_training(batch):
    combined = combine("taid").prepare(*batch[:2], steps=9)
    before = {name: value.clone() for name, value in combined.state_dict().items()}
    combined.eval()(*batch, step=5)
    assert combined.state_dict() == before
    combined.train()(*batch, step=5)
    assert combined.state_dict() != before


@pytest.fixture
def for_one_test(monkeypatch):
    """What is registered is so for one test."""
    for table in ("_entries", "_about"):
        monkeypatch.setattr(REGISTRY, table, dict(getattr(REGISTRY, table)))


def test_an_objective_of_ones_own_may_read_the_attention_of_one_model(for_one_test, batch):
    @REGISTRY.declare(name="calm", kind="attention", needs="student.attention", source="a test")
    def calm(student, teacher, labels=None):
        return student.attention[-1].square().mean()

    given = torch.ones(8, 3, 1, 4, 2)
    plain = Output(batch[0], batch[0])
    combined = combine("calm")
    assert combined.asks("student") == "attention" and combined.asks("teacher") is False
    assert combined(plain._replace(attention=(given,)), None, batch[2])[0] == 1
    with pytest.raises(ValueError, match=r"read attention of the student, whose output has none\. timm's ViT"):
        combined.prepare(plain, None, steps=1)


def test_an_objective_of_ones_own_is_tried_on_ten_classes_and_named_where_it_stops(for_one_test):
    @REGISTRY.declare(kind="logits", needs="teacher", source="a test")
    def surest(student, teacher, labels=None, *, count: int = 3):
        return teacher.logits.topk(count).values.mean()

    assert combine("surest").specs[0]["count"] == 3
    with pytest.raises(ValueError, match=r"^Objective 'surest' stopped .* \(10 classes, .*\), RuntimeError: "):
        combine({"name": "surest", "count": 11})


def test_what_an_objective_of_ones_own_says_is_heard_also_where_it_wants_another_number_of_stages(for_one_test):
    @REGISTRY.declare(kind="features", needs="teacher maps", source="a test")
    def of_three(student, teacher, labels=None, *, share: float = 0.5):
        if len(student.maps) != 3:
            raise ValueError(f"of_three reads 3 stages; got {len(student.maps)}.")
        if share > 1:
            raise ValueError(f"share is up to 1; got {share}.")
        return student.maps[0].mean()

    assert combine("of_three").specs[0]["share"] == 0.5
    with pytest.raises(
        ValueError, match=r"Of 4 stages: of_three reads 3 stages.* Of 3 stages: share is up to 1; got 2\.0\."
    ):
        combine({"name": "of_three", "share": 2.0})


def test_a_fault_in_an_objective_of_ones_own_is_named_beside_what_it_wants(for_one_test):
    @REGISTRY.declare(kind="features", needs="teacher maps", source="a test")
    def of_two(student, teacher, labels=None):
        if len(student.maps) < 2:
            raise ValueError("of_two needs two stages.")
        return student.maps[0].mean() * forgotten  # noqa: F821

    with pytest.raises(
        ValueError, match=r"Of 4 stages: NameError: name 'forgotten' .* Of 1 stages: of_two needs two stages\."
    ):
        combine("of_two")


@pytest.fixture
def matched(for_one_test):
    """A registered objective whose projector depends on the models."""

    @REGISTRY.declare(name="matched", kind="features", needs="teacher pooled", source="a test")
    class Matched(nn.Module):
        def __init__(self, pair, *, bias: bool = True):
            super().__init__()
            self.projector = nn.Linear(pair.student.pooled.shape[1], pair.teacher.pooled.shape[1], bias=bias)
            self.classes = pair.classes

        def forward(self, student, teacher, labels=None, *, scale: float = 1.0):
            return scale * F.mse_loss(self.projector(student.pooled), teacher.pooled)

    return Matched


def outputs(logits, features, device="cpu"):
    return Output(logits.to(device), torch.randn(8, features, dtype=torch.float64).to(device))


def test_modules_are_built_when_shapes_are_known(batch, matched):
    combined = combine(["ce", {"name": "matched", "bias": False, "schedule": {"of": "scale", "end": 4}}])
    assert not list(combined.parameters())
    meta = combined.prepare(outputs(batch[0], 3, "meta"), outputs(batch[1], 5, "meta"), steps=8)
    assert [p.shape for p in meta.parameters()] == [(5, 3)] and meta.parts["1"].classes == 7
    again = combine(["ce", {"name": "matched", "bias": False}]).prepare(
        outputs(batch[0], 3), outputs(batch[1], 5), steps=8
    )
    other = combine({"name": "matched", "bias": False})
    other.prepare(outputs(batch[0], 3), outputs(batch[1], 5), steps=8, seed=1)
    assert torch.equal(*(next(c.parameters()) for c in (combined, again)))
    assert not torch.equal(*(next(c.parameters()) for c in (combined, other)))
    student, teacher = outputs(batch[0], 3), outputs(batch[1], 5)
    total, terms = combined.double()(student, teacher, batch[2], step=1)
    assert total.item() == pytest.approx((terms["ce"] + terms["matched"]).item())
    assert terms["matched"].item() == pytest.approx(0.25 * combined.parts["1"](student, teacher).item())


def test_modules_that_are_not_built_or_have_nothing_to_read_are_a_sentence(batch, matched):
    student, teacher = outputs(batch[0], 3), outputs(batch[1], 5)
    with pytest.raises(
        ValueError, match=r"^matched is built for a pair of models: call prepare\(student_output, ...\)"
    ):
        combine("matched")(student, teacher, None)
    with pytest.raises(ValueError, match=r"^matched is built for a pair of models: combine\('matched'\).prepare"):
        objectives.get("matched")
    with pytest.raises(
        ValueError, match=r"The objectives \['matched'\] read pooled of the teacher, whose output has none"
    ):
        combine("matched").prepare(student, batch[1], steps=8)
    with pytest.raises(ValueError, match="need teacher, which is None"):
        combine("matched").prepare(student, None, steps=8)


@pytest.mark.parametrize(("word", "meant"), [("map", "maps"), ("student.map", "student.maps"), ("label", "labels")])
def test_a_need_that_says_nothing_is_told_the_nearest(word, meant):
    with pytest.raises(ValueError, match=f"Unknown word in needs of an objective '{word}'. Did you mean '{meant}'"):
        REGISTRY.declare(kind="features", needs=f"teacher {word}", source="a test")

"""Rules of merging against what published code made of the same tensors, slow references, and numbers by hand."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch

from wakd_kit.evaluation.merging import merge, named, rules
from wakd_kit.names import UnknownName

from ..reference import merging as reference

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "merging.json").read_text())


def state(flat):
    return {n: torch.tensor(v, dtype=torch.float64).view(GOLDEN["shapes"][n]) for n, v in flat.items()}


START, STATES = state(GOLDEN["start"]), [state(one) for one in GOLDEN["states"]]


def close(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **({"rtol": 0, "atol": 1e-9} | tolerance))


@pytest.mark.parametrize(
    "case, settings",
    [
        ("model_stock_tensor", {}),
        ("arcee_fusion", {}),
        ("ties_tensor_density_0.5", {"density": 0.5, "per": "tensor"}),
        ("ties_network", {}),
        ("score_published", {}),
        ("score_paper", {"published": False}),
    ],
)
def test_rules_make_what_published_code_made(case, settings):
    name = next(rule for rule in rules if case.startswith(rule))
    close(rules.get(name)(START, STATES, **settings), state(GOLDEN["merged"][case]))


def test_the_two_rules_of_score_differ_where_they_should():
    published, paper = (GOLDEN["merged"][f"score_{which}"] for which in ("published", "paper"))
    assert published["vector"] == paper["vector"] and published["matrix"] != paper["matrix"]


@pytest.mark.parametrize("rule", rules)
def test_a_merge_of_one_is_itself_and_runs_that_agree_stay_what_they_are(rule):
    close(merge(START, STATES[:1], rule), {n: t.float() for n, t in STATES[0].items()}, atol=0)
    if rule not in ("task_arithmetic", "ties", "score"):  # the first two shrink and trim, the third adds
        close(merge(START, STATES[:1] * 3, rule), {n: t.float() for n, t in STATES[0].items()}, atol=1e-6)


@pytest.mark.parametrize("rule", rules)
def test_whoever_did_not_move_stays(rule):
    close(merge(START, [START] * 3, rule), {n: t.float() for n, t in START.items()}, atol=0)


@pytest.mark.parametrize("rule", [rule for rule in rules if rule not in ("arcee_fusion", "branch_merge")])
def test_the_order_of_runs_does_not_matter(rule):
    close(merge(START, STATES, rule), merge(START, STATES[::-1], rule), atol=1e-6)


def test_arithmetic_and_trimming_by_hand():
    start, states = (
        {"w": torch.tensor([1.0, 1, 1, 1])},
        [{"w": torch.tensor(v)} for v in ([3.0, 0, 1, 2], [2.0, 4, 1, 0])],
    )
    # moved: 2, -1, 0, 1 and 1, 3, 0, -1
    assert merge(start, states, "task_arithmetic")["w"].tolist() == pytest.approx([2.2, 1.8, 1, 1])
    assert (
        merge(start, states, {"name": "task_arithmetic", "scale": 0.5})["w"].tolist()
        == merge(start, states, "mean")["w"].tolist()
    )
    whole = {"name": "ties", "density": 1}
    assert merge(start, states, whole)["w"].tolist() == [2.5, 4, 1, 2]  # the last sum is 0: the sign of most, +
    half = {
        "name": "ties",
        "density": 0.5,
        "per": "tensor",
        "scale": 0.5,
    }  # 2, -1 or 1 of the first and 1 or -1, 3 of the second stay
    assert merge(start, states, half)["w"][:3].tolist()[1:] == [2.5, 1]


def test_one_angle_of_all_parameters_as_the_slow_reference_has_it():
    flat = [torch.cat([one["matrix"].flatten(), one["vector"]]).tolist() for one in (START, *STATES)]
    found = rules.get("model_stock")(START, STATES, per="network")
    expected = reference.model_stock_of_the_network(flat[0], flat[1:])
    assert torch.cat([found["matrix"].flatten(), found["vector"]]).tolist() == pytest.approx(expected, abs=1e-12)


def test_model_stock_of_runs_that_went_apart_stays_at_the_start():
    start = {"w": torch.zeros(2)}
    apart = [{"w": torch.tensor(v)} for v in ([1.0, 0.0], [-1.0, 0.1], [-0.5, -1.0])]
    assert merge(start, apart, "model_stock")["w"].tolist() == [0, 0]
    at_right_angles = [{"w": torch.tensor(v)} for v in ([1.0, 0.0], [0.0, 1.0])]
    assert merge(start, at_right_angles, "model_stock")["w"].tolist() == [0, 0]
    half = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.5, 3**0.5 / 2])}]  # cos 1/2, t 2/3
    assert merge(start, half, "model_stock")["w"].tolist() == pytest.approx([0.5, 3**0.5 / 6])


def test_the_papers_fusion_as_the_slow_reference_has_it():
    left, right = STATES[0]["matrix"], STATES[1]["matrix"]
    for spread in (0.0, 0.5, 1.5):
        found = rules.get("branch_merge")(START, [{"w": left}, {"w": right}], spread=spread)["w"]
        expected = reference.branch_merge(left.flatten().tolist(), right.flatten().tolist(), spread)
        assert found.flatten().tolist() == expected and left.flatten().tolist() != expected


def test_kernels_are_fused_by_rows_unless_asked_otherwise():
    torch.manual_seed(1)
    old, new = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    found = rules.get("arcee_fusion")({}, [{"w": old}, {"w": new}])["w"]
    expected = reference.fused_rows(old.flatten(1).tolist(), new.flatten(1).tolist(), 1.5)
    assert found.flatten(1).tolist() == expected
    narrow = rules.get("arcee_fusion")({}, [{"w": old}, {"w": new}], rows=False)["w"]
    assert narrow.flatten(2).reshape(-1, 2).tolist() != found.reshape(-1, 2).tolist()


def test_score_of_orthogonal_movements_is_their_sum_and_kernels_count_where_asked():
    start = {"w": torch.zeros(2, 2, 1, 1)}
    states = [
        {"w": torch.tensor([[2.0, 0], [0, 0]]).view(2, 2, 1, 1)},
        {"w": torch.tensor([[0, 0], [0, 3.0]]).view(2, 2, 1, 1)},
    ]
    assert merge(start, states, "score")["w"].flatten().tolist() == [1, 0, 0, 1.5]  # published: kernels are averaged
    assert merge(start, states, {"name": "score", "kernels": True})["w"].flatten().tolist() == pytest.approx(
        [2, 0, 0, 3]
    )


def test_what_does_not_fit_is_a_sentence():
    with pytest.raises(UnknownName, match="Did you mean 'ties'"):
        merge(START, STATES, "tie")
    with pytest.raises(ValueError, match=r"Unknown setting of ties 'densety'\. Did you mean 'density'"):
        merge(START, STATES, {"name": "ties", "densety": 0.1})
    with pytest.raises(ValueError, match=r"density is the share of entries that stay: a number in \[0, 1\]; got 2"):
        merge(START, STATES, {"name": "ties", "density": 2})
    with pytest.raises(ValueError, match="per is one of 'network', 'tensor'; got 'layer'"):
        merge(START, STATES, {"name": "ties", "per": "layer"})
    with pytest.raises(ValueError, match="'vector' differs"):
        merge(START, [STATES[0], {"matrix": START["matrix"]}], "mean")
    with pytest.raises(ValueError, match="nothing to merge"):
        merge(START, [], "mean")
    with pytest.raises(ValueError, match="a name or a dict with a 'name'"):
        merge(START, STATES, {"density": 1})


@pytest.mark.parametrize("rule", rules)
def test_every_rule_says_where_it_is_from(rule):
    assert re.search(r"\b20\d\d\b|@[0-9a-f]{7}", inspect.getdoc(rules.get(rule))), f"{rule} names no source"


def test_a_rule_without_a_name_is_a_sentence():
    with pytest.raises(ValueError, match="A rule of merging is a name or a dict with a 'name'; got"):
        named({"density": 0.2})

"""What notebook 04 picks in a run, and sentences that say what tables made by hand show, and no more."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.averaging import NoWindow
from wakd_kit.landscape import findings
from wakd_kit.landscape.surface import Plane
from wakd_kit.results.differences import interval
from wakd_kit.runs.store import RunProblem

ROLES = {"ink": "source", "neon": "source", "photo": "target"}
BOTH = {"baseline": "last", "average": "WAKD"}


# ---- what is looked at


@pytest.fixture
def choices(run):
    curves = run.source_curves
    return {
        "last": averaging.last(curves),
        "SWAD": NoWindow("validation loss fell to the last segment"),
        "WAKD": averaging.wakd(curves, begin=8),
        "EMA": averaging.ema(curves, decay=0.9),
    }


def test_labels_are_read_from_the_run_and_strategies_are_evaluated_into_it(copied):
    with pytest.raises(ValueError, match=r"copied was not evaluated yet: name strategies, such as \['last', 'wakd'\]"):
        findings.chosen(copied, [])
    first = findings.chosen(copied, ["last", {"name": "wakd", "label": "WAKD", "begin": 8}])
    assert list(first) == ["last", "WAKD"] and set(copied.scores["strategy"]) == {"last", "WAKD"}
    before = copied.scores
    again = findings.chosen(copied, ["WAKD"])
    assert list(again) == ["WAKD"] and np.array_equal(again["WAKD"], first["WAKD"])
    assert list(findings.chosen(copied, [])) == ["last", "WAKD"]
    pd.testing.assert_frame_equal(copied.scores, before)  # nothing was measured again


def test_the_average_is_the_first_over_several_segments(run, choices):
    assert findings.average_of(choices) == "WAKD"
    assert findings.average_of(choices, "EMA") == "EMA"
    assert findings.average_of({"BEMA": averaging.bema(run.source_curves, every=4)}) == "BEMA", "of last iterates alone"
    for alone in ("SWAD", "last"):
        assert findings.average_of(choices, alone) is None
    assert findings.average_of({"last": choices["last"]}) is None
    assert (
        findings.average_of(choices, baseline="WAKD") == "EMA"
        and findings.average_of(choices, "WAKD", baseline="WAKD") is None
    )
    with pytest.raises(ValueError, match=r"Unknown label 'WAKDD'\. Did you mean 'WAKD'\?"):
        findings.average_of(choices, "WAKDD")


def test_usual_corners_are_both_ends_of_what_is_averaged_and_its_mean(run, choices):
    points = findings.corners(run, choices, [], **BOTH)
    assert list(points) == ["last", "WAKD", "step 8"] and points["WAKD"] is choices["WAKD"]
    state, stored = run.average(points["step 8"]), run.segments.read(2, "end")  # segments end at 2, 4, 8, ...
    assert all(torch.equal(state[name], stored[name]) for name in stored)
    assert list(findings.corners(run, choices, [], baseline="last", average="EMA")) == ["last", "EMA", "initial"]
    none = {**choices, "none": NoWindow("no valley")}  # whoever draws it says why it is no point
    assert list(findings.corners(run, none, [], baseline="none", average="WAKD")) == ["none", "WAKD", "step 8"]
    with pytest.raises(ValueError, match=r"Unknown corner 'lst'\. Did you mean 'last'\?"):
        findings.corners(run, choices, [], baseline="lst", average="WAKD")
    best = {**choices, "best": points["step 8"]}
    assert list(findings.corners(run, best, [], baseline="best", average="WAKD")) == ["best", "WAKD", "step 24"]
    assert list(findings.corners(run, choices, [], baseline="last", average=None)) == ["last", "step 12", "initial"]


def test_a_run_of_one_segment_has_no_plane(run, monkeypatch):
    monkeypatch.setattr(type(run.segments), "edges", np.array([24]))
    with pytest.raises(RunProblem, match="has one stored segment, and a plane through its iterates takes two"):
        findings.corners(run, {}, [], baseline="last", average=None)


def test_corners_may_be_labels_steps_and_the_initial_parameters(run, choices):
    points = findings.corners(run, choices, ["EMA", 24, 0], **BOTH)
    assert list(points) == ["EMA", "step 24", "initial"] and points["initial"] == "initial"
    with pytest.raises(
        ValueError, match=r"No stored segment of student ends at step 9; the nearest that does ends at 8\."
    ):
        findings.corners(run, choices, ["EMA", 9, 0], **BOTH)
    with pytest.raises(ValueError, match=r"Unknown corner 'EAM'\. Did you mean 'EMA'\?"):
        findings.corners(run, choices, ["EAM", 8, 0], **BOTH)


def test_a_corner_is_an_iterate_that_is_stored(run, choices):
    merged = SimpleNamespace(
        source_curves=run.source_curves, segments=SimpleNamespace(edges=np.array([4, 12, 24])), name="m"
    )
    with pytest.raises(ValueError, match=r"No stored segment of m ends at step 8; the nearest that does ends at 4\."):
        findings.corners(merged, choices, ["EMA", 8, 0], **BOTH)
    assert list(findings.corners(merged, choices, [], **BOTH)) == ["last", "WAKD", "step 4"]
    assert list(findings.corners(merged, choices, [], baseline="last", average=None)) == ["last", "step 12", "initial"]


def test_distance_is_that_of_the_parameters(run, choices):
    names = [name for name, _ in run.blank_model().named_parameters()]
    states = [run.average(choices[n]) for n in ("last", "WAKD")]
    vectors = [torch.cat([state[k].flatten() for k in names]) for state in states]
    assert findings.distance(run, choices["last"], choices["WAKD"]) == pytest.approx(
        (vectors[0] - vectors[1]).norm().item(), rel=1e-5
    )
    initial = torch.cat([run.segments.initial[k].flatten() for k in names])
    assert findings.distance(run, "initial", choices["last"]) == pytest.approx(
        (vectors[0] - initial).norm().item(), rel=1e-5
    )


def test_radii_along_filters_are_as_far_as_radii_of_the_whole(run, choices):
    far = [findings.unit(run, choices["last"], choices["WAKD"], filter_normalised=along) for along in (False, True)]
    model = run.blank_model()
    model.load_state_dict(run.segments.read(-1, "end"))
    norm = torch.cat([p.detach().flatten() for p in model.parameters()]).norm().item()
    assert far == pytest.approx([findings.distance(run, choices["last"], choices["WAKD"]), far[0] / norm])


def test_pairs_are_the_sides_of_the_plane_and_ways_to_other_runs(copied, choices, tmp_path):
    points = findings.corners(copied, choices, [], **BOTH)
    pairs = findings.pairs(points, choices, "WAKD", [])
    assert list(pairs) == ["last to WAKD", "last to step 8", "WAKD to step 8"]
    assert pairs["WAKD to step 8"] == (points["WAKD"], points["step 8"])
    with pytest.raises(ValueError, match="copied has no average 'WAKD'; it has none"):
        findings.pairs(points, choices, "WAKD", [str(copied.folder)])
    wk.evaluate(copied, {"WAKD": choices["WAKD"]})
    label, (here, (other, there)) = list(findings.pairs(points, choices, "WAKD", [str(copied.folder)]).items())[-1]
    assert label == f"WAKD to that of {tmp_path.name}/copied" and other.folder == copied.folder
    assert here is choices["WAKD"] and np.array_equal(there, here)
    twin = tmp_path / "other" / tmp_path.name / "copied"
    shutil.copytree(copied.folder, twin)
    assert len(findings.pairs(points, choices, "WAKD", [str(copied.folder), str(twin)])) == 5


# ---- what is said


@pytest.fixture
def plane():
    """Lowest at (2, 0) on the source and (0, 4) on the target; WAKD lies 3 beside the plane."""
    rows = []
    for (x, y), d in itertools.product(itertools.product((0.0, 2.0, 4.0), (0.0, 4.0)), ROLES):
        best = (2, 0) if ROLES[d] == "source" else (0, 4)
        rows.append((x, y, d, ROLES[d], 0.5 if (x, y) == best else 1.0, 0.5))
    marks = pd.DataFrame([("last", 4, 0, 0), ("WAKD", 2, 4, 3)], columns=["label", "x", "y", "residual"])
    own = [(label, d, ROLES[d], loss, 0.5) for label, loss in (("last", 0.9), ("WAKD", 0.6)) for d in ROLES]
    return Plane(
        corners=marks.drop(columns="residual"),
        marks=marks,
        path=pd.DataFrame(),
        table=pd.DataFrame(rows, columns=["x", "y", "domain", "role", "loss", "accuracy"]),
        points=pd.DataFrame(own, columns=["label", "domain", "role", "loss", "accuracy"]),
    )


def test_distances_to_the_lowest_loss_count_what_is_off_the_plane(plane):
    assert findings.in_the_valley(plane, **BOTH) == [
        "On source validation the lowest loss of the plane is 0.5 nats; WAKD has 0.6 nats, at a distance of 5 from there, "
        "last has 0.9 nats, at a distance of 2 from there.",
        "On the unseen domain (oracle) the lowest loss of the plane is 0.5 nats; WAKD has 0.6 nats, at a distance of 3.61 "
        "from there, last has 0.9 nats, at a distance of 5.66 from there.",
    ]
    alone = findings.in_the_valley(plane, baseline="last", average=None)
    assert len(alone) == 2 and not any("WAKD" in sentence for sentence in alone)
    with pytest.raises(ValueError, match=r"Unknown mark of the plane 'WAKDD'\. Did you mean 'WAKD'\?"):
        findings.in_the_valley(plane, baseline="last", average="WAKDD")


def test_a_line_is_said_with_its_ends_and_its_barrier():
    table = pd.DataFrame({"t": [0, 0.5, 1], "loss": [1.0, 1.75, 2.0]})
    line = pd.concat(
        [
            table.assign(domain=d, role=r, loss=table["loss"] * (1 if r == "target" else [1, 0.5, 1]))
            for d, r in ROLES.items()
        ]
    )
    assert findings.between({"last to WAKD": line}) == [
        "From last to WAKD: 1 to 2 nats on source validation, no barrier; "
        "1 to 2 nats on the unseen domain (oracle), a barrier of 0.25."
    ]


def rises(difference, directions=6):
    """Around WAKD the loss rises by ``difference(role, radius)`` more than around last, in every direction about."""
    rng = np.random.default_rng(0)
    rows = []
    for radius, k in itertools.product((1.0, 2.0), range(directions)):
        common = rng.normal(radius, radius)  # what one direction does to every average
        for d, role in ROLES.items():
            more = difference(role, radius) + rng.normal(0, 0.01)
            rows += [("last", radius, k, d, role, common), ("WAKD", radius, k, d, role, common + more)]
    return pd.DataFrame(rows, columns=["strategy", "radius", "direction", "domain", "role", "increase"])


@pytest.mark.parametrize(
    "difference, verdict",
    [
        (lambda role, radius: -0.5, "flatter than last at 2 of 2 radii on source validation; flatter than last at 2 of 2 radii on the unseen domain (oracle)"),
        (lambda role, radius: 0.5 * (role == "source"), "sharper than last at 2 of 2 radii on source validation; not to be told from last at any of 2 radii on the unseen domain (oracle)"),
        (lambda role, radius: radius - 1.5, "flatter than last at 1 and sharper than last at 1 of 2 radii on source validation; flatter than last at 1 and sharper than last at 1 of 2 radii on the unseen domain (oracle)"),
    ],
    ids=["flatter", "sharper on the source", "mixed"],
)  # fmt: skip
def test_flatness_is_told_by_paired_intervals_per_role_and_radius(difference, verdict):
    *_, last = findings.flatter(rises(difference), **BOTH)
    assert last == f"So in this run WAKD is {verdict}."


def test_a_rise_that_is_no_number_is_no_verdict():
    table = rises(lambda role, radius: -0.5)
    far = (
        (table["radius"] == 2) & (table["strategy"] == "WAKD") & (table["direction"] == 3) & (table["domain"] == "ink")
    )
    source, _, last = findings.flatter(table.assign(increase=table["increase"].mask(far)), **BOTH)
    assert source.endswith(", +nan at 2.")
    assert "flatter than last at 1 and not to be measured at 1 of 2 radii on source validation" in last
    assert "flatter than last at 2 of 2 radii on the unseen domain" in last


def test_differences_of_flatness_are_said_with_their_intervals():
    table = rises(lambda role, radius: -0.5 * radius)
    source = (
        table[(table["role"] == "source") & (table["radius"] == 2)]
        .groupby(["strategy", "direction"])["increase"]
        .mean()
    )
    paired = source["WAKD"] - source["last"]
    low, high = interval(paired)
    first = findings.flatter(table, **BOTH)[0]
    assert first.startswith(
        "On source validation the rise of the loss around WAKD less that around last, in nats over 6 "
    )
    assert first.endswith(f", {paired.mean():+.3f} [{low:+.3f}, {high:+.3f}] at 2.")


def test_two_directions_have_no_interval_and_no_verdict():
    table = rises(lambda role, radius: -0.5)
    told = findings.flatter(table[table["direction"] < 2], **BOTH)
    assert told[-1] == "Fewer than 3 directions do not tell whether WAKD is flatter."
    assert "over 2 directions" in told[0] and "[" not in told[0] and "nan" not in " ".join(told)


def test_without_an_average_nothing_is_compared():
    (sentence,) = findings.flatter(rises(lambda *_: 0), baseline="last", average=None)
    assert sentence == "There is no average here whose flatness could be compared with that of last."


def test_curvature_is_a_mean_over_the_roles_domains_with_the_error_of_that_mean():
    rows = []
    for (s, f), (i, (d, r)) in itertools.product((("last", 2), ("WAKD", 1)), enumerate(ROLES.items())):
        rows += [(s, d, r, "eigenvalue", 1, f * (i + 1), np.nan), (s, d, r, "eigenvalue", 2, 0.1, np.nan)]
        rows += [(s, d, r, "trace", 0, f * 10 * (i + 1), f * (3 + i))]
    table = pd.DataFrame(rows, columns=["strategy", "domain", "role", "kind", "rank", "value", "standard_error"])
    assert findings.curved(table, **BOTH)[0] == (
        "On source validation the largest eigenvalue and the trace of the Hessian are 1.5 and 15 (± 2.5) around WAKD, "
        "3 and 30 (± 5) around last."
    )

"""Tables that grow: whatever a kill leaves behind, the rest is added and nothing is there twice."""

import json

import pytest

from wakd_kit.evaluation.journal import computed, finished, growing, is_finished, table_file
from wakd_kit.files import holder
from wakd_kit.runs.store import RunProblem

COLUMNS = {"label": str, "x": float, "n": int}


def fill(file, *, upto=4, identity=None, about=dict):
    """Points 0, 1, ... with two rows each; the values would not survive rounding."""
    with growing(file, identity or {"size": 4}, COLUMNS, points=4, rows_per_point=2, about=about) as table:
        first = table.done
        for i in range(first, upto):
            table.append([{"label": 'a, "b"', "x": (i + 1) / 3, "n": i}, {"label": "", "x": float("nan"), "n": -i}])
    return first


def test_numbers_and_labels_come_back_as_they_were(tmp_path):
    file = tmp_path / "landscape" / "table.csv"
    assert fill(file, about=lambda: {"path": [1.5]}) == 0
    about, table = finished(file, COLUMNS)
    assert about == {"identity": {"size": 4}, "rows": 8, "path": [1.5]}
    assert table["x"][::2].tolist() == [1 / 3, 2 / 3, 3 / 3, 4 / 3] and table["x"][1::2].isna().all()
    assert table["label"].tolist() == ['a, "b"', ""] * 4 and table["n"].tolist() == [0, 0, 1, -1, 2, -2, 3, -3]


def test_every_place_to_be_killed_at_gives_the_same_table(tmp_path):
    file = tmp_path / "landscape" / "table.csv"
    fill(file)
    whole = file.read_bytes()
    for length in range(len(whole) + 1):
        file.write_bytes(whole[:length])
        assert is_finished(file) == (length == len(whole))
        if length < len(whole):
            with pytest.raises(RunProblem, match="of 8 rows"):
                finished(file, COLUMNS)
        first = fill(file)
        assert file.read_bytes() == whole and first == max(0, whole[:length].count(b"\n") - 1) // 2


def test_what_is_unfinished_is_said(tmp_path):
    file = tmp_path / "landscape" / "table.csv"
    with pytest.raises(FileNotFoundError, match=r"no table.csv in"):
        finished(file, COLUMNS)
    fill(file, upto=3)
    with pytest.raises(RunProblem, match="has 6 of 8 rows; give the call that began it again"):
        finished(file, COLUMNS)
    assert fill(file) == 3 and is_finished(file)


def test_another_identity_starts_anew_and_says_what_differs(tmp_path):
    file = tmp_path / "landscape" / "table.csv"
    fill(file)
    with pytest.warns(UserWarning, match="was of size 4, this call is of 5: computed anew"):
        assert fill(file, identity={"size": 5}, upto=1) == 0
    assert json.loads(file.with_suffix(".json").read_text())["identity"] == {"size": 5}
    assert fill(file, identity={"size": 5}) == 1


def test_another_order_of_what_a_table_is_of_is_another_table(tmp_path):
    file = tmp_path / "landscape" / "table.csv"
    fill(file, identity={"choices": {"a": "1", "b": "2"}}, upto=2)
    with pytest.warns(
        UserWarning, match="was of choices {'a': '1', 'b': '2'}, this call is of {'b': '2', 'a': '1'}: computed"
    ):
        assert fill(file, identity={"choices": {"b": "2", "a": "1"}}) == 0
    assert fill(file, identity={"choices": {"b": "2", "a": "1"}}) == 4


def test_images_that_were_moved_are_no_other_identity(tmp_path, split):
    file = tmp_path / "landscape" / "table.csv"

    def of(**changes):
        return {"size": 4, "split": {**split.recipe, **changes}}

    fill(file, upto=3, identity=of(benchmark="folder:/here"))
    assert fill(file, identity=of(benchmark="folder:/there")) == 3
    with pytest.warns(UserWarning, match="was of split .*: computed anew"):
        assert fill(file, identity=of(fingerprint="0")) == 0


def test_rows_of_other_code_are_computed_anew_and_those_of_before_that_was_told_stay(tmp_path, monkeypatch):
    file = tmp_path / "landscape" / "table.csv"

    def table(value):
        def rows(table):
            yield from ([{"label": "a", "x": value, "n": 0}] for _ in range(table.done, 2))

        return computed(file, {"size": 2}, COLUMNS, rows, points=2, rows_per_point=1)["x"].tolist()

    assert table(1.0) == table(2.0) == [1.0, 1.0]
    monkeypatch.setattr("wakd_kit.evaluation.journal.of_function", lambda function: "changed")
    with pytest.warns(UserWarning, match="was computed by another version of the code: computed anew"):
        assert table(2.0) == [2.0, 2.0]
    beside = file.with_suffix(".json")
    beside.write_text(json.dumps({"identity": {"size": 2}, "rows": 2}))
    assert table(3.0) == [2.0, 2.0]


def test_two_cannot_fill_one_table(tmp_path):
    file = tmp_path / "landscape" / "table.csv"
    with growing(file, {"size": 4}, COLUMNS, points=4, rows_per_point=2):
        with pytest.raises(RunProblem, match=r"is being computed by another process .*; wait for it, or give"):
            fill(file)
        fill(file.with_name("other.csv"))
    assert fill(file) == 0


@pytest.mark.parametrize("name", ["", "../plane", "a/b"])
def test_names_that_lead_elsewhere_are_refused(run, name):
    with pytest.raises(ValueError, match="a file name without a folder"):
        table_file(run, name)


def test_who_computes_a_table_can_be_read_and_what_a_kill_left_is_gone(tmp_path):
    file = tmp_path / "landscape" / "table.csv"
    file.parent.mkdir()
    (file.parent / "table.json.01234567.part").write_text("half")
    with growing(file, {"size": 4}, COLUMNS, points=4, rows_per_point=2) as table:
        table.append([{"label": "a", "x": 1.0, "n": 0}] * 2)
        assert holder(file.with_suffix(".lock")).startswith("process ") and file.read_text().count("\n") == 3
        with pytest.raises(RunProblem, match=r"another process \(process \d+ on .* since"):
            fill(file)
    assert not list(file.parent.glob("*.part"))

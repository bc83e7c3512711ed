"""A study file may extend another: what stands in it takes the place of what that one says."""

import pytest
import yaml

from wakd_kit.study.run import StudyProblem, load_study, planned

BASE = {
    "name": "base",
    "benchmark": "folder:images",
    "seeds": [0, 1],
    "teacher": {"steps": 6, "learning_rate": 0.1},
    "common": {"weights": "w.safetensors", "steps": 6},
    "students": {"CE": {"teacher": None}, "KD": {}},
    "landscape": {"size": 3, "students": ["KD"]},
}


@pytest.fixture
def write(tmp_path):
    def file(where: str, **values):
        path = tmp_path / where
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(values))
        return path

    file("base.yaml", **BASE)
    return file


def test_blocks_of_settings_are_completed_and_all_else_takes_its_place(write, tmp_path):
    own = {"teacher": {"steps": 9}, "seeds": [7], "students": {"KD": {}}, "benchmark": "digits"}
    study = load_study(write("mine/own.yaml", extends="../base.yaml", **own))
    assert study.name == "own" and study.benchmark == "digits" and study.seeds == [7]
    assert study.teacher == {"steps": 9, "learning_rate": 0.1} and study.students == {"KD": {}}
    assert study.landscape == BASE["landscape"]
    assert study.common == {"weights": str(tmp_path / "w.safetensors"), "steps": 6}  # beside the file that says it


def test_a_landscape_of_the_extended_study_is_of_a_domain_that_is_left_out(write, tmp_path):
    of = {"extends": "quickstart", "targets": ["photo"]}  # whose landscape is of sketch
    with pytest.raises(StudyProblem, match="landscape: targets: sketch is not left out here; choose of photo, such as"):
        planned(write("mine.yaml", **of), out=tmp_path / "report", runs=tmp_path / "runs")
    for looked_at in ({"targets": ["photo"]}, {"students": []}):
        assert planned(write("mine.yaml", **of, landscape=looked_at), out=tmp_path / "report", runs=tmp_path / "runs")


def test_a_chain_ends_and_a_shipped_study_is_called_by_its_name(write):
    middle = write("middle.yaml", extends="base.yaml", title="Middle")
    study = load_study(write("last.yaml", extends=str(middle), name="third", landscape={"size": 5}))
    assert (study.name, study.title) == ("third", "Middle") and study.landscape == {"size": 5, "students": ["KD"]}
    short = load_study(write("short.yaml", extends="quickstart", seeds=[0, 5]))
    assert short.students == load_study("quickstart").students and (short.name, short.seeds) == ("short", [0, 5])


def test_what_cannot_be_extended_is_a_sentence(write):
    write("a.yaml", extends="mine/b.yaml")
    for file, sentence in (
        (write("mine/b.yaml", extends="../a.yaml"), "b.yaml extends itself, by way of .*a.yaml."),
        (write("c.yaml", extends="nowhere.yaml"), "No study file at .*nowhere.yaml."),
        (write("d.yaml", extends="quickstrat"), "Unknown study 'quickstrat'. Did you mean 'quickstart'?"),
    ):
        with pytest.raises(StudyProblem, match=sentence):
            load_study(file)

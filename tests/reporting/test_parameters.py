"""What parameters of a notebook stand for, where that is more than their values."""

import inspect
import re
from dataclasses import fields

import pytest
import torch

import wakd_kit as wk
from wakd_kit.averaging import NoWindow
from wakd_kit.models.build import build_model
from wakd_kit.names import ParameterError
from wakd_kit.reporting.parameters import NOT_OF_THE_MODEL, describe, descriptions, make
from wakd_kit.runs.identity import check_unseen, provenance_of
from wakd_kit.runs.settings import NAMES

Distill = describe("02_distill")


def test_a_teacher_teaches_as_it_deployed_or_as_another_average_of_its_run(copied):
    place = str(copied.folder)
    assert make(Distill, {"teacher": place}).taught_by() == place
    last = make(Distill, {"teacher": place, "teacher_as": {"name": "last"}}).taught_by()
    expected = copied.average(wk.averaging.last(copied.source_curves))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in last.state_dict().items())
    assert provenance_of(last)["strategy"] == "last" and provenance_of(last)["run"] == copied.name


def test_an_exported_file_teaches_and_knows_what_it_was_trained_on(copied, split, tmp_path):
    last, file = wk.averaging.last(copied.source_curves), tmp_path / "t.safetensors"
    card = wk.export(copied, last, file, split=split, scores=False)
    first, second = make(Distill, {"teacher": {"of": [str(file), "start"]}}).taught_by()["of"]
    expected = copied.average(last)
    assert second == "start" and all(torch.equal(t, expected[name]) for name, t in first.state_dict().items())
    with pytest.raises(ValueError, match="was trained on 'north', the domain that should be unseen"):
        check_unseen(first, wk.leave_one_out(split.domains, "north", 0))
    card.unlink()
    with pytest.raises(
        ValueError, match=r"t\.safetensors cannot teach: .* with its card t\.safetensors\.json beside it"
    ):
        make(Distill, {"teacher": str(file)}).taught_by()


def test_an_average_that_is_not_there_does_not_teach(copied):
    never = {"name": "swad", "loss": "val_kd_loss"}  # it had no teacher of its own
    assert isinstance(*wk.choose(copied, [never]).values(), NoWindow)
    with pytest.raises(NoWindow, match=r"no .val_kd_loss. curve"):
        make(Distill, {"teacher": str(copied.folder), "teacher_as": never}).taught_by()


@pytest.mark.parametrize(
    "given, sentence",
    [
        (
            {"teacher": None, "teacher_as": {"name": "last"}},
            "teacher_as is an average of the teacher, and there is none.",
        ),
        (
            {"teacher": {"of": [None]}},
            'teacher: Several teachers are runs, their folders, modules or "start"; got of=None.',
        ),
        ({"teacher_as": {"name": "lasst"}}, "teacher_as: Unknown strategy 'lasst'. Did you mean 'last'?"),
        ({"teacher_as": "last"}, "teacher_as='last': expected dict or None, got str."),
        *(
            (
                {"teacher": teacher, "teacher_as": {"name": "last"}},
                f"run that teaches, and {__file__} is a file, of one average;",
            )
            for teacher in (__file__, {"of": ["start", __file__]})
        ),
    ],
)
def test_what_cannot_teach_is_a_sentence(given, sentence):
    with pytest.raises(ParameterError) as problem:
        make(Distill, given)
    assert sentence in str(problem.value)


@pytest.mark.parametrize(
    "objective, sentence",
    [
        ({"name": "dho", "temperature": -1.0}, "temperature is a positive number; got -1.0."),
        ({"name": "dho", "share": 3.0}, "share of dho is from 0 to 1; got 3.0."),
        ({"name": "dho", "schedule": {"of": "share", "first": 3.0}}, "share of dho is from 0 to 1; got 3.0."),
        ({"name": "simkd", "factor": 0}, "factor is a whole number >= 1; got 0."),
    ],
)
def test_settings_of_what_is_deployed_are_refused_before_a_teacher_is_trained(objective, sentence):
    make(Distill, {"objectives": [{"name": objective["name"]}]})
    with pytest.raises(ParameterError) as problem:
        make(Distill, {"objectives": [objective]})
    assert sentence in str(problem.value)


def test_what_build_model_names_itself_is_no_setting_of_the_model():
    assert {*NOT_OF_THE_MODEL} == {*inspect.signature(build_model).parameters} - {"inside", "settings"}
    for name in NOT_OF_THE_MODEL:
        with pytest.raises(ParameterError, match=f"model_settings are the model's own, and '{name}' is none"):
            make(Distill, {"model_settings": {name: None}})


def test_every_parameter_is_explained_where_it_is_described_or_where_it_is_shared():
    described = [
        cls for cls in map(describe, descriptions) if cls.__module__.startswith("wakd_kit.")
    ]  # no other test's
    classes = {base for cls in described for base in cls.__mro__[:-1]}
    explained = {name for cls in classes for name in re.findall(r"^    (\w+)  ", cls.__doc__, re.M)} | {*NAMES}
    assert {f.name for cls in classes for f in fields(cls)} <= explained


@pytest.mark.parametrize("notebook", ["01_train_teacher", "02_distill"])
def test_what_is_deployed_is_declared(notebook):
    """So that it is as exact as it was asked for: an edge where it begins, or a moving average that training keeps."""
    given = {"strategies": [{"name": "last", "label": "last"}, {"name": "wakd", "begin": 0.4}], "steps": 60}
    deploys = [{"name": "ema", "decay": 0.95}, {"name": "wakd", "begin": 0.4}]
    declared = [make(describe(notebook), given | {"deploy": one}).settings().declare for one in deploys]
    assert declared[0] == [*given["strategies"], {"name": "ema", "decay": 0.95, "label": "deployed"}]
    assert declared[1] == given["strategies"], "what is declared already is not declared twice"
    by_name = {"strategies": ["last", "ema"], "deploy": {"name": "ema"}}
    assert make(describe(notebook), by_name).settings().declare == [{"name": "last"}, {"name": "ema"}]
    with pytest.raises(ParameterError, match="deploy: A wanted strategy is a name or a dict with a 'name'"):
        make(describe(notebook), given | {"deploy": {"begin": 0.4}})
    with pytest.raises(ParameterError, match="a strategy is labelled 'deployed'"):
        make(
            describe(notebook),
            {"strategies": ["last", {"name": "sma", "label": "deployed"}], "deploy": {"name": "ema"}},
        )

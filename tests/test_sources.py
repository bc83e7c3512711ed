"""What a step of a study depends on: every module is accounted for, and a digest sees code and nothing else."""

from pathlib import Path

import pytest

from wakd_kit import sources

PACKAGE = Path(sources.PACKAGE)
# no number of a study depends on these: command line, engine, explorer, data tools, what a notebook is, how files are written
NOT_RESULTS = {
    "__init__",
    "__main__",
    "benchmarks",
    "board",
    "data_check",
    "data_get",
    "explorer",
    "exporting",
    "files",
    "jobs",
    "loggers",
    "notebook",
    "parameters",
    "planning",
    "pretraining",
    "registry",
    "scene",
    "soups",
    "sources",
    "study",
    "unpacking",
}


def test_every_module_belongs_to_a_step_or_decides_no_number():
    listed = {part.partition(":")[0] for parts in (sources.RECORDING, *sources.ANALYSIS.values()) for part in parts}
    modules = {file.stem for file in PACKAGE.glob("*.py")}
    assert modules - listed - NOT_RESULTS == set()
    assert modules >= NOT_RESULTS and not NOT_RESULTS & listed
    assert sources.digests(sources.RECORDING) and all(map(sources.digests, sources.ANALYSIS.values()))


def forget():
    sources._digest.cache_clear()
    sources._digests.cache_clear()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of a package of its own and returns the digest of a part of it."""
    monkeypatch.setattr(sources, "PACKAGE", tmp_path)

    def digest(text: str, part: str = "m") -> dict[str, str]:
        (tmp_path / "m.py").write_text(text)
        forget()
        return sources.digests([part])

    yield digest
    forget()


CODE = '"""A module."""\n\n\ndef f(x):\n    """Adds one."""\n    return x + 1\n\n\ndef g():\n    return 2\n'


def test_a_digest_is_of_code_and_not_of_words(module):
    before = module(CODE)
    assert module(CODE.replace("A module", "Another").replace("Adds one", "Adds")) == before
    assert module(CODE.replace("x + 1\n", "(x + 1)  # why\n")) == before
    assert module(CODE.replace("x + 1", "x + 2")) != before
    assert module(CODE.replace('    """Adds one."""\n', '    x = "Adds one."\n')) != before


def test_a_part_may_be_some_definitions_of_a_module(module):
    before = module(CODE, "m:f")
    assert module(CODE.replace("return 2", "return 3"), "m:f") == before
    assert module(CODE.replace("x + 1", "x + 2"), "m:f") != before
    with pytest.raises(FileNotFoundError, match="does not define all of f,h"):
        module(CODE, "m:f,h")


def test_an_objective_depends_on_the_module_that_defines_it():
    parts = sources.of_objectives(["wakd_kit.objectives.logits", "elsewhere.losses", "wakd_kit.objectives.logits"])
    assert parts == ("objectives/logits",) and list(sources.digests(parts)) == ["objectives/logits"]

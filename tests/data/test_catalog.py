"""Published benchmarks: the facts agree with themselves and with the real PACS, and the data folder is found."""

from pathlib import Path

import pytest
import yaml

from wakd_kit.data.catalog import BENCHMARKS, DataProblem, config_file, data_folder, locate, published
from wakd_kit.names import UnknownName

IMAGES = {"pacs": 9991, "vlcs": 10729, "officehome": 15588, "terra": 24330, "domainnet": 586575, "celeba": 202599}
CLASSES = {"pacs": 7, "vlcs": 5, "officehome": 65, "terra": 10, "domainnet": 345, "celeba": 2}
for level in ("easy", "medium", "hard"):
    IMAGES[f"spawrious_o2o_{level}"], CLASSES[f"spawrious_o2o_{level}"] = 50688, 4


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_facts_agree_with_the_literature_and_with_each_other(benchmark):
    assert benchmark.images == IMAGES[benchmark.name] and len(benchmark.classes) == CLASSES[benchmark.name]
    assert benchmark.classes == tuple(sorted(set(benchmark.classes))), (
        "labels count folders in ASCII order, as elsewhere"
    )
    for domain, numbers in benchmark.per_class.items():
        assert len(numbers) == len(benchmark.classes) and sum(numbers) == benchmark.counts[domain]
    for form in benchmark.other_counts:
        assert form.keys() == benchmark.counts.keys()


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_every_source_is_https_and_every_checksum_has_an_author(benchmark):
    downloads = [*benchmark.files, *(benchmark.hub.files if benchmark.hub else ())]
    assert len({file.name for file in downloads}) == len(downloads)
    for file in downloads:
        assert file.url is None or file.url.startswith("https://")
        assert bool(file.checksum) == bool(file.recorded)
        if file.checksum:
            algorithm, _, digest = file.checksum.partition(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[algorithm] and int(digest, 16)


def test_terra_has_the_form_of_the_papers_too():
    terra = BENCHMARKS["terra"]
    (papers,) = terra.other_counts
    assert sum(papers.values()) == 24788
    assert terra.nearest_counts(papers) == papers and terra.nearest_counts({}) == terra.counts
    assert terra.nearest_counts({**papers, "location_38": 1}) == papers


def test_the_real_pacs_has_the_images_of_each_class_that_are_expected(pacs_path):
    pacs = BENCHMARKS["pacs"]
    for domain, numbers in pacs.per_class.items():
        assert [len(list((pacs_path / domain / name).iterdir())) for name in pacs.classes] == list(numbers)


def test_an_unknown_benchmark_is_told_the_nearest():
    with pytest.raises(UnknownName, match=r"Unknown published benchmark 'office'. Did you mean 'officehome'\?"):
        published("office")


@pytest.fixture
def nothing_set(monkeypatch, tmp_path):
    monkeypatch.delenv("WAKD_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    config_file().parent.mkdir(parents=True)


def test_the_data_folder_is_named_by_the_environment_or_else_by_the_config_file(nothing_set, monkeypatch, tmp_path):
    assert data_folder() is None
    config_file().write_text('data = "~/sets"\n')
    assert data_folder() == Path.home() / "sets"
    monkeypatch.setenv("WAKD_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("WAKD_DATA", "")
    assert data_folder() == Path.home() / "sets"


def test_the_config_file_lies_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config_file() == Path.home() / ".config" / "wakd" / "config.toml"


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("data = /sets", r"config.toml is not TOML .*it should read data ="),
        ("data = 3", r"config.toml: data is a path in quotes.*got 3"),
        ('dta = "/sets"', r"config.toml: Unknown setting 'dta'. Did you mean 'data'\?"),
    ],
)
def test_a_config_file_that_does_not_fit_is_a_sentence(nothing_set, text, sentence):
    config_file().write_text(text)
    with pytest.raises(DataProblem, match=sentence):
        data_folder()


def test_a_benchmark_is_located_under_both_names_of_its_folder(nothing_set, monkeypatch, tmp_path):
    office = BENCHMARKS["officehome"]
    with pytest.raises(DataProblem, match=r"Where is Office-Home\? Write officehome:PATH, set WAKD_DATA"):
        locate(office)
    monkeypatch.setenv("WAKD_DATA", str(tmp_path))
    with pytest.raises(DataProblem, match=r"has no folder OfficeHome/ or office_home/.*wakd data get officehome"):
        locate(office)
    for name in ("office_home", "OfficeHome"):  # DomainBed's, then ours, which goes first
        (tmp_path / name).mkdir()
        assert locate(office) == tmp_path / name


def test_the_page_on_data_names_every_benchmark_with_its_counts():
    page = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text()
    for benchmark in BENCHMARKS.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{benchmark.name}` |"))
        assert f"{benchmark.images:,}" in row and f"`{benchmark.folders[0]}/`" in row
        assert f"| {len(benchmark.classes)} |" in row and all(f"`{domain}`" in row for domain in benchmark.counts)


def test_shipped_studies_name_benchmarks_that_load():
    from wakd_kit.data.domains import benchmarks

    for study in (Path(__file__).parent.parent.parent / "reports").glob("*.yaml"):
        spec = yaml.safe_load(study.read_text()).get("benchmark", "digits")
        assert spec.partition(":")[0] in benchmarks, study

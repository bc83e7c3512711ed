"""Every name that 0f5ebef answered to still answers: of the package, the command line, studies, notebooks and what is registered."""

import contextlib
import io

import pytest

import wakd_kit as wk
from wakd_kit.averaging import strategies
from wakd_kit.cli import LISTS, main
from wakd_kit.data.domains import benchmarks
from wakd_kit.models.weights import shipped
from wakd_kit.objectives import objectives
from wakd_kit.reporting.parameters import describe
from wakd_kit.runs.record import GAINED, RunProblem, refuse_other_settings
from wakd_kit.study.run import NOTEBOOKS, load_study

words = str.split
PUBLIC = words("""Domains Run Soup Split averaging build_model choices_table choose comparison domains_from_arrays evaluate evaluate_model
export landscape leave_one_out load_domains load_run objectives source_score train window_map window_map_proxy""")
COMMANDS = {
    "report": "study --out --runs --cores --gpus --profile --dry-run --keep-recordings",
    "status": "study --out --runs",
    "train": "NAME=VALUE",
    "pretrain": "name images NAME=VALUE --to --data --licence",
    "notebook": "notebook out -p --parameter",
    "average": "run --strategy --export --no-scores",
    "landscape": "run NAME=VALUE -o --out",
    "list": "strategies,objectives,domains,studies,weights",
    "doctor": "run --drop-teachers",
    "log": "runs --tensorboard --wandb",
    "data": "get,check",
    "data get": "name --to",
    "data check": "path --benchmark --sheet",
}
STRATEGIES = words("""last best_val uniform window wakd ema swa lawa wise_ft swad swad_published swad_wakd_repo eoa_wakd_repo sma iidmax
greedy_soup learned power annealed bema extrapolate""")
AVERAGING = words("""Coefficients Curves NoWindow Recurrence as_curves check_barrier choose diwa ema_recurrence ensemble labels_of settings_of
uniform_soup""")
OBJECTIVES = words("""crd wcord_in_batch crd_memory xded dho kdpp fitnet fitnet_raw at vid vkd simkd reviewkd ofa ce kd mse margin_mse bckd rs_kd
ctkd taid uld dkd nkd wsld mlkd mlkd_repo ls_kd ls_dkd dist ttm wttm proto_kd sinkd rkd sp cc cc_paper pkt nst
cwtm dkpp std_ce label_mse abkd cosine moments coral vrex irm group_dro mutual bi_kd lfme pesf_kd ccfp""")
DOMAINS = words("digits folder pacs vlcs officehome terra domainnet images")
WEIGHTS = words("resnet10t_w16.px32 resnet10t_w16.px64 resnet18_w16.px32 resnet18_w24.px64 vit_conv_d64.px32")
STUDIES = words("""digits_full digits_pretrained heterogeneous_cnn heterogeneous_mixer heterogeneous_vit objectives officehome_deit_tiny
officehome_resnet18 pacs64 pacs64_pretrained pacs_deit_tiny pacs_resnet18 quickstart when_it_helps""")
BOOKS = words(
    """01_train_teacher 02_distill 03_compare 04_landscape 05_objectives 06_when_averaging_helps 10_explore_averaging"""
)


def test_public_names_answer():
    assert set(PUBLIC) <= {*wk.__all__}
    assert not [name for name in PUBLIC if getattr(wk, name, None) is None]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_answer_with_what_they_take(command):
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert not [word for word in COMMANDS[command].replace(",", " ").split() if word not in printed.getvalue()]


@pytest.mark.parametrize(
    "known, then",
    [(strategies, STRATEGIES), (objectives, OBJECTIVES), (benchmarks, DOMAINS), (shipped(), WEIGHTS)],
    ids=["strategies", "objectives", "domains", "weights"],
)
def test_what_is_registered_answers(known, then):
    assert not [name for name in then if name not in known]
    assert set(LISTS) >= {"strategies", "objectives", "domains", "studies", "weights"}


def test_strategies_answer_as_functions_too():
    assert not [name for name in [*STRATEGIES, *AVERAGING] if not hasattr(wk.averaging, name)]


def test_studies_and_notebooks_answer():
    assert [load_study(name).name for name in STUDIES] == STUDIES
    assert not [name for name in BOOKS if not (NOTEBOOKS / f"{name}.ipynb").is_file() or not describe(name)]


def test_what_was_renamed_is_understood_also_in_recordings(tmp_path):
    assert wk.objectives.combine("proto_kd").specs == wk.objectives.combine("prototypes").specs
    recorded = {"objectives": [{"name": "proto_kd", "weight": 1.0}]}
    refuse_other_settings(tmp_path, recorded, {**GAINED, "objectives": wk.objectives.combine("prototypes").specs})
    with pytest.raises(RunProblem, match="objectives"):
        refuse_other_settings(tmp_path, recorded, {**GAINED, "objectives": wk.objectives.combine("rkd").specs})

"""The published benchmarks: what each one holds, where to get it, and where it lies on this machine.

Facts only: domains, classes, counts, sources, checksums. ``data_get`` fetches what is listed here, ``data_check``
compares a folder with it, and ``load_domains("pacs")`` finds it in the data folder, which is

    the environment variable WAKD_DATA, or else
    data = "/path" in ~/.config/wakd/config.toml ($XDG_CONFIG_HOME/wakd/config.toml where that is set).

Domain generalisation papers resize every image of these five to 224 x 224 pixels (Gulrajani and Lopez-Paz, "In Search
of Lost Domain Generalization", ICLR 2021, appendix D.1): that is ``load_domains``'s default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files import path_of
from ..names import UnknownName, did_you_mean

_SUFFIXES = ".jpg .jpeg .jpe .jfif .jp2 .png .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .tga"
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())


class DataProblem(ValueError):
    """Images that are missing, unreadable or not what they should be; the message names each of them."""


@dataclass(frozen=True)
class Download:
    """One file of a benchmark's source, saved as ``name``.

    url       None for a file that no host is known to serve any more: it is used when it was fetched by hand
    size      bytes, None if not known
    checksum  ``sha256:...`` or ``md5:...``, None where none is published: then the first download's is kept
    recorded  who recorded the checksum
    """

    name: str
    url: str | None = None
    size: int | None = None
    checksum: str | None = None
    recorded: str = ""


@dataclass(frozen=True)
class Hub:
    """A data set repository on the Hugging Face hub at one revision; its files are parquet with embedded images."""

    repository: str
    revision: str
    files: tuple[Download, ...]


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark, laid out as domain/class/images.

    folders      its names inside the data folder; the first is ours, others are accepted
    counts       {domain: images} that papers report; ``other_counts`` are further forms in circulation
    per_class    {domain: images of each class, in the order of ``classes``}, where known
    where        how to get the files by hand: a clause that goes with "get"
    note         what explains counts that differ
    """

    name: str
    title: str
    paper: str
    folders: tuple[str, ...]
    counts: Mapping[str, int]
    classes: tuple[str, ...]
    licence: str
    where: str
    files: tuple[Download, ...]
    hub: Hub | None = None
    other_counts: tuple[Mapping[str, int], ...] = ()
    per_class: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    note: str = ""

    @property
    def images(self) -> int:
        return sum(self.counts.values())

    def nearest_counts(self, found: Mapping[str, int]) -> Mapping[str, int]:
        """The published form that agrees with most of the counted domains."""
        return max((self.counts, *self.other_counts), key=lambda form: sum(found.get(d) == form[d] for d in form))


def published(name: str) -> Benchmark:
    """The benchmark of that name; ``UnknownName`` with the closest one otherwise."""
    if name not in BENCHMARKS:
        raise UnknownName(did_you_mean("published benchmark", name, BENCHMARKS))
    return BENCHMARKS[name]


def config_file() -> Path:
    # where nobody knows the home folder "~" stays as it is, and no such file is there
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "wakd" / "config.toml"


def data_folder() -> Path | None:
    """The folder that holds the benchmarks' folders: ``WAKD_DATA``, else the config file's ``data``, else None.

    Raises ``DataProblem`` for a config file that is not TOML, has an unknown key, or whose ``data`` is no text.
    """
    if os.environ.get("WAKD_DATA"):
        return path_of(os.environ["WAKD_DATA"])
    file = config_file()
    if not file.is_file():
        return None
    try:
        settings = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise DataProblem(f'{file} is not TOML ({error}); it should read data = "/path/to/data".') from None
    for key in settings:
        if key != "data":
            raise DataProblem(f"{file}: {did_you_mean('setting', key, ['data'])}")
    if not isinstance(settings.get("data", ""), str):
        raise DataProblem(f'{file}: data is a path in quotes, as in data = "/path/to/data"; got {settings["data"]!r}.')
    return path_of(settings["data"]) if settings.get("data") else None


def locate(benchmark: Benchmark) -> Path:
    """Its folder inside the data folder; ``DataProblem`` says how to point there, or how to get it."""
    how = (
        f"Write {benchmark.name}:PATH, set WAKD_DATA to the folder that holds {benchmark.folders[0]}/ "
        f'(or data = "..." in {config_file()}), or get it: wakd data get {benchmark.name}.'
    )
    data = data_folder()
    if data is None:
        raise DataProblem(f"Where is {benchmark.title}? {how}")
    for folder in benchmark.folders:
        if (data / folder).is_dir():
            return data / folder
    raise DataProblem(f"{data} has no folder {' or '.join(f'{f}/' for f in benchmark.folders)}. {how}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PACS = Benchmark(
    name="pacs",
    title="PACS",
    paper='Li et al., "Deeper, Broader and Artier Domain Generalization", ICCV 2017',
    folders=("PACS",),
    counts={"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929},
    classes=("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
    per_class={
        "art_painting": (379, 255, 285, 184, 201, 295, 449),
        "cartoon": (389, 457, 346, 135, 324, 288, 405),
        "photo": (189, 202, 182, 186, 199, 280, 432),
        "sketch": (772, 740, 753, 608, 816, 80, 160),
    },
    licence="None is stated by its authors; images of Caltech256, Sketchy, TU-Berlin and web searches. Research use.",
    where="PACS.zip of DomainBed, whose folder kfold/ holds the domains (the links of DomainBed and of the authors' "
    "page no longer answer; facebookresearch/DomainBed issue 165 lists copies)",
    hub=Hub(
        "flwrlabs/pacs",
        "394113073258ead631f617d2e13bb377c0715c4b",
        (
            Download(
                "data/train-00000-of-00001.parquet",
                size=191_395_900,
                checksum="sha256:4fc041ee92eec6043fe6e2859e8bdd138e5f958bc621afd153879812cbe65ff5",
                recorded="several public repositories that pin this revision",
            ),
        ),
    ),
    files=(Download("PACS.zip"),),
)

VLCS = Benchmark(
    name="vlcs",
    title="VLCS",
    paper='Fang et al., "Unbiased Metric Learning", ICCV 2013',
    folders=("VLCS",),
    counts={"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376},
    classes=("bird", "car", "chair", "dog", "person"),
    licence="None of its own: images of PASCAL VOC 2007, LabelMe, Caltech-101 and SUN09, each with its terms.",
    where="VLCS.tar.gz of DomainBed, https://drive.google.com/uc?id=1skwblH1_okBwxWxmRsp9_qi15hyPpxg8 (where that asks "
    "for a click or no longer answers, facebookresearch/DomainBed issue 165 lists copies)",
    files=(
        Download(
            "VLCS.tar.gz",
            "https://drive.usercontent.google.com/download?confirm=t&id=1skwblH1_okBwxWxmRsp9_qi15hyPpxg8",
            checksum="md5:8870171eba660927d9668f4e515928e4",
            recorded="LarsKue/context-aware-domain-generalization, for DomainBed's archive",
        ),
    ),
    note="The copy of JiGen (VLCS/CALTECH/full/0/...) has other folders and is not read.",
)

OFFICE_HOME = Benchmark(
    name="officehome",
    title="Office-Home",
    paper='Venkateswara et al., "Deep Hashing Network for Unsupervised Domain Adaptation", CVPR 2017',
    folders=("OfficeHome", "office_home"),
    counts={"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357},
    classes=_names("""
    Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch
    Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet
    Kettle Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil
    Postit_Notes Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker Spoon
    TV Table Telephone ToothBrush Toys Trash_Can Webcam"""),
    licence="Images of web searches; the authors' page states the terms of use.",
    where="OfficeHomeDataset_10072016.zip from https://www.hemanthdv.org/officeHomeDataset.html (Google Drive)",
    hub=Hub(
        "flwrlabs/office-home",
        "2a083645e3177afbd91ba4fa2651238f8994d335",
        tuple(
            Download(
                f"data/train-0000{i}-of-00003.parquet",
                size=size,
                checksum=f"sha256:{checksum}",
                recorded="Dung092005/pretrained-vision-domain-shift",
            )
            for i, (size, checksum) in enumerate(
                (
                    (248_782_886, "a2519afebd495007309a3b8252a8f1eb8b1075c74a5e423fea54d24487e1edb1"),
                    (119_438_711, "8ce4a279c2fdf36ce3b84f3b00831c54ccc98dc0b4317af4891a819f6d66aab1"),
                    (790_762_518, "76eacc8b09fcf352e163a781c71460477462d246f842839bc977539444623330"),
                )
            )
        ),
    ),
    files=(
        Download(
            "OfficeHomeDataset_10072016.zip",
            checksum="md5:b1c14819770c4448fd5b6d931031c91c",
            recorded="LarsKue/context-aware-domain-generalization and others",
        ),
    ),
    note="Several hundred images are there twice (412, byte for byte: Dung092005/pretrained-vision-domain-shift).",
)

_LILA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
TERRA = Benchmark(
    name="terra",
    title="TerraIncognita",
    paper='Beery et al., "Recognition in Terra Incognita", ECCV 2018, in the selection of DomainBed',
    folders=("TerraIncognita", "terra_incognita"),
    counts={"location_100": 4741, "location_38": 9736, "location_43": 3970, "location_46": 5883},
    other_counts=({"location_100": 4879, "location_38": 9767, "location_43": 4020, "location_46": 6122},),
    classes=("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel"),
    licence="Community Data License Agreement, permissive variant (LILA BC).",
    where=f"eccv_18_all_images_sm.tar.gz and eccv_18_annotations.tar.gz under {_LILA}/ "
    '("CCT20 benchmark subset" on https://lila.science/datasets/caltech-camera-traps, which also names mirrors)',
    files=(
        Download("eccv_18_annotations.tar.gz", f"{_LILA}/eccv_18_annotations.tar.gz", size=2_997_071),
        Download("eccv_18_all_images_sm.tar.gz", f"{_LILA}/eccv_18_all_images_sm.tar.gz", size=6_492_615_601),
    ),
    note="DomainBed and papers on it report 24,788 images, a form that is no longer served; today's has 24,330 "
    "(khanrc/miro issue 9). The hub's BGLab/TerraIncognita is another data set (insects).",
)

_BU = "https://csr.bu.edu/ftp/visda/2019/multi-source"
# file, bytes and sha256 as in tensorflow/datasets, image_classification/domainnet/checksums.tsv
_BU_FILES = """
domainnet/txt/clipart_train.txt 1443819 affdadf5f95a7583e6b98030a3d35007e2613ee4dd942393c5a705ec2b429312
domainnet/txt/clipart_test.txt 628917 62c8e36aaba1c41ad9e249099739707220a44c08f167b37ef420f34a31628a6b
domainnet/txt/infograph_train.txt 1683098 36b44cbd41a2915e0dc73b4f4be8862a6f3c220f93c8d63fb2439beeae3aefda
domainnet/txt/infograph_test.txt 728028 413cfa54ac92e7e6b242f4f09fbd9c8ace85c4deaf3cb6c81ff6b68264460136
domainnet/txt/painting_train.txt 2241901 f1da38d50a702fddf1329f85bc607d7a2abcae7e6aec75e1fd49cc1bd340d47b
domainnet/txt/painting_test.txt 971888 11472b13b5188e09f06918b12eebb660588c97a20e43e268d9b02e3e37eb8f97
domainnet/txt/quickdraw_train.txt 5164600 3a5edd3bc215772010eebc87f158707703dd7e48091d13b816af81326a9d1c0f
domainnet/txt/quickdraw_test.txt 2213400 2a00a60650a453c65c356da748fec54084a197272137c440e7d52d08947357bf
domainnet/txt/real_train.txt 4440944 19d483256d24aef19e581b65eda8333fd918aef3eb733fe499ff384120e3a289
domainnet/txt/real_test.txt 1911327 2b3f75bcde309aeb5931292084b2162e936b5f189e3bb1ad716f0f74c460864c
domainnet/txt/sketch_train.txt 1960222 72f4bc6afa5702a1ccba800d0053c1427de87439dfaf246dbc9a2e71abfec54f
domainnet/txt/sketch_test.txt 850581 3fb48fca18c507c4321f007c3f62b308ec232ff6928cbfe2af64e76ec366e840
groundtruth/clipart.zip 1270909081 f8f248a3e8bbc9868c523ae24e6601b4c2ad102afc60c0efeb4f3255df22354d
groundtruth/painting.zip 3679366174 fa47e6d405503ea0286cabd767f176bd30e988b63ddd7b9db16cf030c9770015
infograph.zip 4338659804 891e14f476317e97b6f06d6498c11d0a5b8d0c8b57210765ed9beb072da611fa
quickdraw.zip 459920701 9f37df2a8c3733703dbb35ad9964202a65f675ca30137756457537536b485d84
real.zip 6062039589 d7fe010b430c5b510f85d657d38c4a1924822695fabea4fef57bd00dba251d63
sketch.zip 2633992926 23a7dbae7016b343e934399beaa8a68728fb5e570ebe2c71df9b75cf91c499fc
"""
DOMAINNET = Benchmark(
    name="domainnet",
    title="DomainNet",
    paper='Peng et al., "Moment Matching for Multi-Source Domain Adaptation", ICCV 2019, the cleaned version',
    folders=("DomainNet", "domain_net"),
    counts={
        "clipart": 48129,
        "infograph": 51605,
        "painting": 72266,
        "quickdraw": 172500,
        "real": 172947,
        "sketch": 69128,
    },
    classes=_names("""
    The_Eiffel_Tower The_Great_Wall_of_China The_Mona_Lisa aircraft_carrier airplane alarm_clock ambulance angel
    animal_migration ant anvil apple arm asparagus axe backpack banana bandage barn baseball baseball_bat basket
    basketball bat bathtub beach bear beard bed bee belt bench bicycle binoculars bird birthday_cake blackberry
    blueberry book boomerang bottlecap bowtie bracelet brain bread bridge broccoli broom bucket bulldozer bus bush
    butterfly cactus cake calculator calendar camel camera camouflage campfire candle cannon canoe car carrot castle
    cat ceiling_fan cell_phone cello chair chandelier church circle clarinet clock cloud coffee_cup compass computer
    cookie cooler couch cow crab crayon crocodile crown cruise_ship cup diamond dishwasher diving_board dog dolphin
    donut door dragon dresser drill drums duck dumbbell ear elbow elephant envelope eraser eye eyeglasses face fan
    feather fence finger fire_hydrant fireplace firetruck fish flamingo flashlight flip_flops floor_lamp flower
    flying_saucer foot fork frog frying_pan garden garden_hose giraffe goatee golf_club grapes grass guitar
    hamburger hammer hand harp hat headphones hedgehog helicopter helmet hexagon hockey_puck hockey_stick horse
    hospital hot_air_balloon hot_dog hot_tub hourglass house house_plant hurricane ice_cream jacket jail kangaroo
    key keyboard knee knife ladder lantern laptop leaf leg light_bulb lighter lighthouse lightning line lion
    lipstick lobster lollipop mailbox map marker matches megaphone mermaid microphone microwave monkey moon mosquito
    motorbike mountain mouse moustache mouth mug mushroom nail necklace nose ocean octagon octopus onion oven owl
    paint_can paintbrush palm_tree panda pants paper_clip parachute parrot passport peanut pear peas pencil penguin
    piano pickup_truck picture_frame pig pillow pineapple pizza pliers police_car pond pool popsicle postcard potato
    power_outlet purse rabbit raccoon radio rain rainbow rake remote_control rhinoceros rifle river roller_coaster
    rollerskates sailboat sandwich saw saxophone school_bus scissors scorpion screwdriver sea_turtle see_saw shark
    sheep shoe shorts shovel sink skateboard skull skyscraper sleeping_bag smiley_face snail snake snorkel snowflake
    snowman soccer_ball sock speedboat spider spoon spreadsheet square squiggle squirrel stairs star steak stereo
    stethoscope stitches stop_sign stove strawberry streetlight string_bean submarine suitcase sun swan sweater
    swing_set sword syringe t-shirt table teapot teddy-bear telephone television tennis_racquet tent tiger toaster
    toe toilet tooth toothbrush toothpaste tornado tractor traffic_light train tree triangle trombone truck trumpet
    umbrella underwear van vase violin washing_machine watermelon waterslide whale wheel windmill wine_bottle
    wine_glass wristwatch yoga zebra zigzag"""),
    licence="Images of web searches and of Quick, Draw!; the authors' page states the terms of use.",
    where="the six zip files of the cleaned version and its twelve lists (clipart_train.txt, clipart_test.txt, ...) "
    "from https://ai.bu.edu/M3SDA, 18.5 GB",
    files=tuple(
        Download(file.split("/")[-1], f"{_BU}/{file}", int(size), f"sha256:{checksum}", "tensorflow/datasets")
        for file, size, checksum in (line.split() for line in _BU_FILES.split("\n") if line)
    ),
    note="The cleaned version leaves out duplicates; without it: 48,837, 53,201, 75,759, 172,500, 175,327, 70,386.",
)

BENCHMARKS: Mapping[str, Benchmark] = {b.name: b for b in (PACS, VLCS, OFFICE_HOME, TERRA, DOMAINNET)}

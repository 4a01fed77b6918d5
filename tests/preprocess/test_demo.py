"""The synthetic survey: reproducible, in the layout of its tree's survey, with pictures that match what was drawn."""

import csv
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess import demo
from preprocess.synthetic import Frame, Galaxy, blur, draw_cutout, galaxy_light, sersic, stretch
from preprocess.volunteers import Answers
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import ConfigError, SettingError, TreeError
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree

KAGGLE = builtin_tree("kaggle")
SURVEY = {"galaxies": 30, "seed": 3}
SMOOTH = Galaxy("spheroid", radius=20, axis_ratio=0.95, position_angle=30, brightness=90, redness=0.9)
SPIRAL = Galaxy(
    "disk", radius=32, axis_ratio=0.9, position_angle=30, brightness=30, redness=0.2, bulge=0.2, sersic_index=1.5, arms=2,
    arm_contrast=0.9,
)  # fmt: skip
EDGE_ON = Galaxy("edge-on", radius=35, axis_ratio=0.12, position_angle=0, brightness=60, redness=0.5)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey of 30 galaxies with votes and 3 without, drawn by two processes."""
    out = tmp_path_factory.mktemp("demo") / "new" / "kaggle"
    demo.make_demo(out, **SURVEY, workers=2)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_same_seed_gives_same_bytes_for_any_number_of_workers(drawn: Path, tmp_path: Path) -> None:
    demo.make_demo(tmp_path / "again", **SURVEY, workers=1)
    assert contents(tmp_path / "again") == contents(drawn)


def test_another_seed_gives_other_galaxies(drawn: Path, tmp_path: Path) -> None:
    demo.make_demo(tmp_path / "other", galaxies=4, seed=-1, workers=1)
    assert not set(contents(tmp_path / "other").values()) & set(contents(drawn).values())


def test_larger_survey_holds_every_picture_of_a_smaller_one(drawn: Path, tmp_path: Path) -> None:
    demo.make_demo(tmp_path / "small", galaxies=10, seed=SURVEY["seed"], workers=1)
    small = {name: content for name, content in contents(tmp_path / "small").items() if name.endswith(".jpg")}
    assert len(small) == 11
    assert small.items() <= contents(drawn).items()


def test_layout_is_kaggles(drawn: Path) -> None:
    assert sorted(path.name for path in drawn.iterdir()) == [
        "images_test_rev1", "images_training_rev1", "training_solutions_rev1.csv",
    ]  # fmt: skip
    header, *rows = csv.reader((drawn / "training_solutions_rev1.csv").read_text().splitlines())
    assert header == ["GalaxyID", *KAGGLE.columns]
    labelled = {path.stem for path in (drawn / "images_training_rev1").iterdir()}
    unlabelled = {path.stem for path in (drawn / "images_test_rev1").iterdir()}
    assert [row[0] for row in rows] == sorted(labelled) and len(rows) == 30
    assert len(unlabelled) == 3 and not labelled & unlabelled
    assert all(len(name) == 6 and name.isdigit() for name in labelled | unlabelled)


def test_table_of_votes_obeys_the_tree_to_a_millionth(drawn: Path) -> None:
    rows = [*csv.reader((drawn / "training_solutions_rev1.csv").read_text().splitlines())][1:]
    votes = np.array([[float(value) for value in row[1:]] for row in rows])
    assert votes.shape == (30, 37) and votes.min() >= 0 and votes.max() <= 1
    assert KAGGLE.deviation(votes).max() <= 1e-6


def test_kaggles_survey_is_the_one_that_it_was_before_there_were_other_trees(drawn: Path) -> None:
    """Every byte of the table, and the pictures' mean colours: a random number drawn more or less would change both.

    The pictures' bytes also depend on the versions of Pillow and NumPy.
    """
    table = (drawn / "training_solutions_rev1.csv").read_bytes()
    assert hashlib.sha256(table).hexdigest() == "cba20f08e7232fd1e84e58aa209d3750af18f2ef01942c355c65790bd2df0d2d"
    for name, colour in (
        ("images_training_rev1/164400.jpg", (5.968, 5.648, 4.878)),
        ("images_training_rev1/190044.jpg", (9.580, 8.003, 5.895)),
        ("images_test_rev1/495044.jpg", (7.777, 7.456, 6.040)),
    ):
        with Image.open(drawn / name) as image:
            assert np.asarray(image).mean(axis=(0, 1)) == pytest.approx(colour, abs=0.02)


@pytest.fixture(scope="module")
def other_surveys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A survey of 10 galaxies with votes and 1 without for each of our trees but Kaggle's."""
    folder = tmp_path_factory.mktemp("others")
    for name in builtin_names()[1:]:
        demo.make_demo(folder / name, galaxies=10, seed=3, tree=name)
    return {name: folder / name for name in builtin_names()[1:]}


def rows_of(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text().splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize("name", builtin_names()[1:])
def test_another_survey_has_its_own_columns_of_counts_that_obey_its_tree(other_surveys: dict[str, Path], name: str) -> None:
    tree, folder = builtin_tree(name), other_surveys[name]
    rows = rows_of(folder / (tree.tables or ("votes.csv",))[0])
    layout = tree.layouts[0]
    totals = [f"{q.key}{layout.total}" for q in tree.questions] if layout.total else []
    assert list(rows[0]) == [tree.id, *(f"{column}{layout.suffix}" for column in tree.columns), *totals]
    assert [row[tree.id] for row in rows] == sorted({row[tree.id] for row in rows}) and len(rows) == 10
    counts = np.array([[int(row[f"{column}{layout.suffix}"]) for column in tree.columns] for row in rows])
    assert counts.sum() > 0
    for q in tree.questions:
        given = counts[:, q.columns].sum(axis=1)
        if q.parents:
            assert (given <= counts[:, list(q.parents)].sum(axis=1)).all()
        if totals:
            assert [int(row[totals[q.index]]) for row in rows] == given.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decals12", "decals5", "desi", "euclid"])
def test_images_are_named_by_the_ids_of_the_table(other_surveys: dict[str, Path], name: str) -> None:
    tree, folder = builtin_tree(name), other_surveys[name]
    rows = rows_of(folder / (tree.tables or ("votes.csv",))[0])
    images = [path.stem for path in (folder / "images").rglob("*.jpg")]
    assert sorted(images) == [row[tree.id] for row in rows]
    [unlabelled] = [path.stem for path in (folder / "images_without_votes").rglob("*.jpg")]
    assert unlabelled not in images and not any(image.isdecimal() for image in images)


@pytest.mark.slow
def test_gz2_joins_the_ids_of_its_table_with_files_in_a_second_one(other_surveys: dict[str, Path]) -> None:
    folder = other_surveys["gz2"]
    ids = [row["dr7objid"] for row in rows_of(folder / "gz2_hart16.csv")]
    mapping = {row["objid"]: row["asset_id"] for row in rows_of(folder / "gz2_filename_mapping.csv")}
    assert all(len(one) == 18 and one.isdigit() for one in mapping)
    assert sorted(mapping[one] for one in ids) == sorted(path.stem for path in (folder / "images").iterdir())
    [unlabelled] = (folder / "images_without_votes").iterdir()
    assert [asset for one, asset in mapping.items() if one not in ids] == [unlabelled.stem]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decals5", "gz2"])
def test_larger_survey_of_another_tree_holds_the_smaller_one(other_surveys: dict[str, Path], tmp_path: Path, name: str) -> None:
    demo.make_demo(tmp_path / "small", galaxies=4, seed=3, workers=2, tree=builtin_tree(name))
    small, large = (contents(folder) for folder in (tmp_path / "small", other_surveys[name]))
    for path, content in small.items():
        lines = content.split(b"\n")
        assert (
            (set(lines) <= set(large[path].split(b"\n")) and len(lines) > 4)
            if path.endswith(".csv")
            else content == large[path]
        )
    assert sum(path.endswith(".jpg") for path in small) == 4


@pytest.mark.parametrize("name", builtin_names())
def test_every_galaxy_has_a_name_of_its_own_as_the_survey_writes_it(name: str) -> None:
    tree = builtin_tree(name)
    names = [demo.name_galaxy(number, tree) for number in (*range(100_000, 140_000), *range(960_000, 1_000_000))]
    assert len({one.id for one in names}) == len({one.image for one in names}) == len(names)
    form = {
        "GalaxyID": r"\d{6}", "dr7objid": r"587\d{15}", "iauname": r"J\d{6}\.\d\d[+-]\d{6}\.\d", "id_str": r"\d+_\d+"
    }[tree.id]  # fmt: skip
    assert all(re.fullmatch(form, one.id) for one in names)
    if tree.id == "iauname":
        assert all(one.image == f"{one.id[:4]}/{one.id}" for one in names)
        # The right ascension is below 24 h, the declination that of the survey, minutes and seconds are below 60.
        assert all(one.id[1:3] < "24" and max(one.id[3], one.id[5], one.id[13], one.id[15]) < "6" for one in names)
        assert {one.id[10:13] for one in names} == {*(f"-{d:02}" for d in range(19)), *(f"+{d:02}" for d in range(32))} - {
            "-18"
        }


RING = """
id = "name"
tables = ["{table}"]
[[votes]]
kind = "{kind}"
suffix = "_x"
total = "{total}"
[[question]]
key = "ring"
answers = {{ yes = "ring_yes" }}
rest = "no"
[[question]]
key = "arms"
after = ["ring_no"]
answers = {{ 1 = "arms_1", 2 = "arms_2" }}
"""


@pytest.mark.parametrize(
    ("kind", "total", "rows"),
    [
        ("fractions", "", ["7,0.250000,0.333333,0.666667", "8,1.000000,0.000000,0.000000"]),
        ("cumulative", "", ["7,0.250000,0.250000,0.500000", "8,1.000000,0.000000,0.000000"]),
        ("counts", "_n", ["7,1,1,2,4,3", "8,5,0,0,5,0"]),
    ],
)
def test_the_table_has_the_first_layout_of_the_tree_and_no_column_for_the_rest(kind: str, total: str, rows: list[str]) -> None:
    tree = parse_tree(RING.format(kind=kind, total=total, table="mine.csv"), "mine.toml", "mine")
    answers = {"8": Answers(np.array([5, 0, 0, 0]), np.array([5, 0])), "7": Answers(np.array([1, 3, 1, 2]), np.array([4, 3]))}
    header = ["name", "ring_yes_x", "arms_1_x", "arms_2_x", *(["ring_n", "arms_n"] if total else [])]
    assert demo.votes_table(answers, tree) == "\n".join([",".join(header), *rows, ""])


@pytest.mark.parametrize(
    ("table", "path"), [("a/mine.csv", "a/mine.csv"), ("../../mine.csv", "mine.csv"), ("votes.parquet", "votes.csv")]
)
def test_a_users_own_tree_is_drawn_and_writes_nothing_outside_its_folder(tmp_path: Path, table: str, path: str) -> None:
    (tmp_path / "mine.toml").write_text(RING.format(kind="fractions", total="", table=table))
    demo.make_demo(tmp_path / "a" / "demo", galaxies=1, tree=tmp_path / "mine.toml")
    [image] = [name for name in contents(tmp_path) if name.endswith(".jpg")]
    assert sorted(contents(tmp_path)) == sorted(["mine.toml", image, f"a/demo/{path}"])


def test_a_tree_is_drawn_like_kaggles_if_it_has_its_questions_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(KAGGLE.text.replace('name = "kaggle"', 'name = "own"'), "utf-8")
    for name, tree in (("kaggle", "kaggle"), ("own", tmp_path / "own.toml")):
        demo.make_demo(tmp_path / name, galaxies=2, tree=tree)
    assert contents(tmp_path / "own") == contents(tmp_path / "kaggle")
    other = parse_tree(RING.format(kind="fractions", total="", table="mine.csv"), "kaggle.toml", "kaggle")
    demo.make_demo(tmp_path / "other", galaxies=1, tree=other)
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["images", "images_without_votes", "mine.csv"]


def test_a_tree_that_asks_about_something_else_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    text = 'name = "mine"\n[[question]]\nkey = "colour"\nanswers = { red = "r", blue = "b" }'
    tree: Tree = parse_tree(text, "mine.toml", "mine")
    with pytest.raises(SettingError, match=r"--tree mine: .* question 'colour' \(red, blue\): choose from kaggle, "):
        demo.make_demo(tmp_path / "demo", galaxies=10, tree=tree)
    with pytest.raises(TreeError, match=r"--tree decal5: no such tree: did you mean decals5"):
        demo.make_demo(tmp_path / "demo", galaxies=10, tree="decal5")
    assert not [*tmp_path.iterdir()]


def test_pictures_are_rgb_cutouts_with_a_galaxy_in_the_middle_of_a_dark_sky(drawn: Path) -> None:
    pictures = []
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (424, 424))
            pictures.append(np.asarray(image).astype(float))
    stack = np.stack(pictures)
    assert (stack.std(axis=(1, 2, 3)) > 2).all()
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 33
    middle = stack[:, 202:222, 202:222].mean(axis=(1, 2, 3))
    sky = np.median(stack, axis=(1, 2, 3))
    assert (sky < 40).all() and np.median(sky) < 10 and (middle > sky + 20).all()


def test_colour_and_shape_of_the_picture_follow_the_galaxy() -> None:
    def crop(galaxy: Galaxy) -> np.ndarray:
        return np.asarray(draw_cutout(galaxy, np.random.default_rng(5)), float)[152:272, 152:272]

    def redness(pixels: np.ndarray) -> float:
        return float(pixels[..., 0].sum() / pixels[..., 2].sum())

    assert redness(crop(replace(SMOOTH, redness=1.0))) > 1.4 * redness(crop(replace(SMOOTH, redness=0.0)))
    lying, standing = (crop(replace(EDGE_ON, position_angle=angle)).mean(axis=2) for angle in (0, 90))
    assert lying[55:65].mean() > 2 * lying[:, 55:65].mean()
    assert standing[:, 55:65].mean() > 2 * standing[55:65].mean()


def test_arms_bar_and_companion_change_the_light_that_is_drawn() -> None:
    frame = Frame(176, 2.4, 0.0, 3.3, np.zeros(3))
    plain = galaxy_light(replace(SPIRAL, arms=0), frame, np.random.default_rng(1))
    for changes in ({"arms": 2}, {"bar": 0.9}, {"ring": 1.0}, {"companion": 1.0}, {"clumps": 1.0}, {"dust": 1.0}, {"arc": 1.0}):
        changed = galaxy_light(replace(SPIRAL, **{"arms": 0, **changes}), frame, np.random.default_rng(1))
        assert np.abs(changed - plain).sum() > 0.05 * plain.sum(), changes


def test_seeing_keeps_the_light_and_blurs_a_point_to_its_width() -> None:
    light = np.zeros((3, 64, 64), np.float32)
    light[:, 32, 32] = 100
    seen = blur(light, np.array([3.0, 4.0, 5.0]), np.zeros((3, 2)))
    assert seen.sum(axis=(1, 2)) == pytest.approx([100] * 3, rel=1e-4)
    assert seen[1, 32, 34] == pytest.approx(seen[1, 32, 32] / 2, rel=1e-3)


@pytest.mark.parametrize("index", [0.5, 1.0, 2.5, 4.0])
def test_half_of_a_sersic_galaxys_light_lies_within_its_half_light_radius(index: float) -> None:
    radius = np.geomspace(1e-5, 1e4, 200_001)
    light = np.cumsum(sersic(radius, index) * radius * np.gradient(radius))
    assert light[np.searchsorted(radius, 1.0)] / light[-1] == pytest.approx(0.5, abs=0.003)


def test_stretch_keeps_colours_and_never_clips_one_band_alone() -> None:
    light = np.array([2.0, 1.0, 0.5])[:, None, None] * np.geomspace(100, 1e6, 5)[None, None]
    levels = stretch(light, np.zeros(3)).astype(float)
    assert levels[..., 1] / levels[..., 0] == pytest.approx(np.full((1, 5), 0.5), abs=0.02)
    assert levels[0, -1].tolist() == pytest.approx([255, 127.5, 63.75], abs=1)


@pytest.mark.parametrize("is_file", [False, True])
def test_refuses_what_is_already_there_and_leaves_it_alone(tmp_path: Path, is_file: bool) -> None:
    out = tmp_path / "kaggle"
    mine = out if is_file else out / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("keep me")
    with pytest.raises(ConfigError, match=r"kaggle: already exists .* choose another --out"):
        demo.make_demo(out, galaxies=10, seed=0, workers=1)
    assert contents(tmp_path) == {str(mine.relative_to(tmp_path)): b"keep me"}


@pytest.mark.parametrize("galaxies", [0, 10**6])
def test_refuses_a_number_of_galaxies_it_cannot_name(tmp_path: Path, galaxies: int) -> None:
    with pytest.raises(SettingError, match=f"--galaxies {galaxies}"):
        demo.make_demo(tmp_path / "kaggle", galaxies=galaxies, seed=0, workers=1)
    assert not [*tmp_path.iterdir()]


def test_an_empty_folder_is_filled_and_a_users_folder_beside_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle.partial" / "images_training_rev1").mkdir(parents=True)
    (tmp_path / "kaggle.partial" / "images_training_rev1" / "1.jpg").write_bytes(b"mine")
    demo.make_demo(tmp_path / "kaggle", galaxies=2, seed=0, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kaggle", "kaggle.partial"]
    assert len(contents(tmp_path / "kaggle")) == 3
    assert [*contents(tmp_path / "kaggle.partial").values()] == [b"mine"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]) -> None:
    finished = []

    def fail_at_the_third(galaxy: Galaxy, generator: np.random.Generator) -> Image.Image:
        if len(finished) == 2:
            raise failure
        finished.append(galaxy)
        return draw_cutout(galaxy, generator)

    monkeypatch.setattr(demo, "draw_cutout", fail_at_the_third)
    with pytest.raises(failure):
        demo.make_demo(tmp_path / "kaggle", galaxies=10, seed=0, workers=1)
    assert len(finished) == 2 and not [*tmp_path.iterdir()]

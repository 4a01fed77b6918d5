"""The synthetic survey: reproducible, in Kaggle's layout, with votes that obey the tree and match what was drawn."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess import demo
from preprocess.synthetic import Frame, Galaxy, blur, draw_cutout, galaxy_light, sersic, stretch
from tfrecords.errors import ConfigError, SettingError
from tfrecords.taxonomy import COLUMN_INDEX, COLUMNS, tree_deviation

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


@pytest.fixture(scope="module")
def population() -> tuple[list[Galaxy], np.ndarray]:
    """400 galaxies and the votes on them; no image is drawn, which saves time."""
    galaxies, votes = [], []
    for index in range(400):
        generator = np.random.default_rng([0, 0, index])
        galaxies.append(demo.draw_galaxy(generator))
        votes.append(demo.draw_votes(galaxies[-1], generator))
    return galaxies, np.stack(votes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mean_votes(galaxy: Galaxy, column: str) -> float:
    """The mean votes of 100 groups of volunteers."""
    generator = np.random.default_rng(0)
    return float(np.mean([demo.draw_votes(galaxy, generator)[COLUMN_INDEX[column]] for _ in range(100)]))


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
    assert header == ["GalaxyID", *COLUMNS]
    labelled = {path.stem for path in (drawn / "images_training_rev1").iterdir()}
    unlabelled = {path.stem for path in (drawn / "images_test_rev1").iterdir()}
    assert [row[0] for row in rows] == sorted(labelled) and len(rows) == 30
    assert len(unlabelled) == 3 and not labelled & unlabelled
    assert all(len(name) == 6 and name.isdigit() for name in labelled | unlabelled)


def test_table_of_votes_obeys_the_tree_to_a_millionth(drawn: Path) -> None:
    rows = [*csv.reader((drawn / "training_solutions_rev1.csv").read_text().splitlines())][1:]
    votes = np.array([[float(value) for value in row[1:]] for row in rows])
    assert votes.shape == (30, 37) and votes.min() >= 0 and votes.max() <= 1
    assert tree_deviation(votes).max() <= 1e-6


def test_every_galaxy_is_asked_what_the_tree_asks_and_no_more(population: tuple[list[Galaxy], np.ndarray]) -> None:
    _, votes = population
    assert votes.min() >= 0 and votes.max() <= 1 and tree_deviation(votes).max() <= 1e-9
    nobody = votes[:, COLUMN_INDEX["Class1.2"]] == 0
    assert nobody.any() and not votes[nobody][:, COLUMN_INDEX["Class2.1"] : COLUMN_INDEX["Class5.4"] + 1].any()


def test_answer_probabilities_are_probabilities(population: tuple[list[Galaxy], np.ndarray]) -> None:
    for galaxy in population[0]:
        for probabilities in demo.answer_probabilities(galaxy):
            assert probabilities.min() >= 0 and probabilities.sum() == pytest.approx(1)


def test_votes_follow_the_drawn_galaxy(population: tuple[list[Galaxy], np.ndarray]) -> None:
    galaxies, votes = population

    def agreement(parameter: list[float], column: str, among: np.ndarray) -> float:
        return float(np.corrcoef(np.array(parameter)[among], votes[among, COLUMN_INDEX[column]])[0, 1])

    everyone = np.ones(len(galaxies), bool)
    disks, smooth = (np.array([g.kind == kind for g in galaxies]) for kind in ("disk", "spheroid"))
    assert agreement([g.kind == "spheroid" for g in galaxies], "Class1.1", everyone) > 0.9
    assert agreement([g.kind == "edge-on" for g in galaxies], "Class2.1", everyone) > 0.9
    assert agreement([g.bar for g in galaxies], "Class3.1", disks) > 0.9
    assert agreement([g.arm_contrast * (g.arms > 0) for g in galaxies], "Class4.1", disks) > 0.75
    assert agreement([g.bulge for g in galaxies], "Class5.4", disks) > 0.5
    assert agreement([g.axis_ratio for g in galaxies], "Class7.1", smooth) > 0.7
    assert agreement([g.pitch * (g.arms > 0) for g in galaxies], "Class10.3", disks) > 0.5
    assert agreement([g.arms == 2 for g in galaxies], "Class11.2", disks) > 0.6


def test_columns_are_as_varied_as_real_ones(population: tuple[list[Galaxy], np.ndarray]) -> None:
    means = dict(zip(COLUMNS, population[1].mean(axis=0), strict=True))
    assert 0.25 < means["Class1.1"] < 0.5 and 0.5 < means["Class1.2"] < 0.7 and means["Class1.3"] < 0.1
    assert 0.8 < means["Class6.2"] < 0.9
    assert min(means.values()) > 0


@pytest.mark.parametrize(
    ("galaxy", "other", "column"),
    [
        (SMOOTH, SPIRAL, "Class1.1"),
        (SPIRAL, replace(SPIRAL, arms=0, ring=1.0), "Class4.1"),
        (EDGE_ON, SPIRAL, "Class2.1"),
        (replace(SPIRAL, bar=0.9), SPIRAL, "Class3.1"),
        (replace(SMOOTH, axis_ratio=0.3), SMOOTH, "Class7.3"),
        (replace(SMOOTH, companion=1.0), SMOOTH, "Class8.6"),
        (replace(EDGE_ON, bulge=0.3), EDGE_ON, "Class9.1"),
        (replace(SPIRAL, arms=4), SPIRAL, "Class11.4"),
        (Galaxy("star", 6, 1.0, 0, 100, 0.5), SMOOTH, "Class1.3"),
    ],
)
def test_volunteers_see_what_sets_a_galaxy_apart(galaxy: Galaxy, other: Galaxy, column: str) -> None:
    assert mean_votes(galaxy, column) > mean_votes(other, column) + 0.3


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

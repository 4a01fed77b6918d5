"""A small synthetic survey in the layout of a real one: galaxies, and the votes that volunteers might have given.

Galaxies of random types are drawn by `synthetic`; `volunteers` then answer the questions of the survey's decision tree. Images
and tables have the names that they have in the survey.
"""

import contextlib
import multiprocessing
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.engines import guard_worker, starting_workers, worker_killed
from preprocess.synthetic import Galaxy, draw_cutout
from preprocess.volunteers import Answers, draw_answers, refuse_unanswerable
from tfrecords.builtin import KAGGLE, find_tree, is_kaggle
from tfrecords.errors import ConfigError, SettingError, require_setting
from tfrecords.files import local_path, partial_path, sync_folder, write_text
from tfrecords.progress import progress_bar
from tfrecords.tree import Tree

FOLDERS = ("images", "images_without_votes")
KAGGLE_FOLDERS = ("images_training_rev1", "images_test_rev1")
JPEG_QUALITY = 75  # that of the real cutouts, by their quantisation tables
IDS = 900_000  # with six digits


@dataclass(frozen=True)
class Mix:
    """The galaxies of a survey. shares: of each type in KINDS; bar, disturbance: the least of barred and disturbed galaxies."""

    shares: tuple[float, ...]
    bar: float
    disturbance: float


KINDS = ("smooth", "edge-on", "spiral", "barred", "ring", "irregular", "disturbed", "merger", "arc", "star", "trail")
PLAIN = Mix((0.29, 0.19, 0.25, 0.16, 0.025, 0.02, 0.02, 0.02, 0.005, 0.015, 0.005), bar=0.6, disturbance=0.7)
# For surveys that ask every volunteer about mergers, and tell weak from strong: enough of each to learn from.
FINE = Mix((0.44, 0.11, 0.17, 0.13, 0.01, 0.03, 0.04, 0.04, 0.005, 0.015, 0.01), bar=0.3, disturbance=0.3)


def mix_of(tree: Tree) -> Mix:
    """The galaxies of a tree's survey: FINE if it asks about merging, else PLAIN."""
    return FINE if any("merging" in question.title for question in tree.questions) else PLAIN


def draw_galaxy(generator: np.random.Generator, mix: Mix = PLAIN) -> Galaxy:
    """A galaxy of a random type. PLAIN: 29 % smooth, 19 % edge-on, 25 % spiral, 16 % barred, the rest odd or not a galaxy."""
    uniform = generator.uniform
    kind = generator.choice(KINDS, p=mix.shares)
    turn = uniform(0, 180)
    if kind == "star":
        return Galaxy("star", 6.0, 1.0, turn, generator.uniform(50, 200), uniform(-0.2, 1.2))
    if kind == "trail":
        return Galaxy("trail", uniform(3, 8), 1.0, turn, uniform(60, 200), uniform(-0.5, 1.6))
    if kind in ("smooth", "merger", "arc"):
        ratio = float(generator.choice((uniform(0.86, 1), uniform(0.5, 0.82), uniform(0.24, 0.4)), p=(0.36, 0.42, 0.22)))
        return Galaxy(
            "spheroid",
            radius=uniform(18, 27) / ratio**0.3,
            axis_ratio=ratio,
            position_angle=turn,
            brightness=uniform(65, 130),
            redness=uniform(0.65, 1.0),
            sersic_index=uniform(2.0, 4.2),
            dust=uniform(0.7, 1) if kind == "smooth" and generator.random() < 0.04 else 0.0,
            companion=uniform(0.6, 1) if kind == "merger" else 0.0,
            arc=1.0 if kind == "arc" else 0.0,
        )
    if kind == "edge-on":
        bulge = float(generator.choice((0.0, uniform(0.12, 0.4)), p=(0.4, 0.6)))
        return Galaxy(
            "edge-on",
            radius=uniform(28, 42),
            axis_ratio=uniform(0.10, 0.18),
            position_angle=turn,
            brightness=uniform(45, 95),
            redness=uniform(0.25, 0.9) + 0.1 * (bulge > 0),
            bulge=bulge,
            sersic_index=uniform(1.2, 2.5),
            boxiness=uniform(0.7, 1) if generator.random() < 0.12 else 0.0,
            dust=uniform(0.4, 1) if generator.random() < 0.25 else 0.0,
        )
    bulges = (0.0, uniform(0.04, 0.12), uniform(0.15, 0.32), uniform(0.4, 0.6))
    bulge = float(generator.choice(bulges, p=(0.12, 0.4, 0.38, 0.1)))
    grand = generator.random() < 0.8  # arms that can be counted
    arms = int(generator.choice((1, 2, 3, 4, 6), p=(0.06, 0.58, 0.16, 0.11, 0.09)))
    barred = kind == "barred"
    bulge *= 0.5 if barred else 0.2 if kind == "irregular" else 1.0  # a big one would outshine the bar, or the patches
    spiral = kind in ("spiral", "barred") or (kind == "disturbed" and generator.random() < 0.7)
    return Galaxy(
        "disk",
        radius=uniform(27, 38),
        axis_ratio=uniform(0.42, 1.0),
        position_angle=turn,
        brightness=uniform(22, 45),
        redness=float(np.clip(uniform(0.0, 0.4) + 0.7 * bulge + 0.15 * barred, 0, 1)),
        bulge=bulge,
        sersic_index=uniform(1, 2.5),
        arms=arms if spiral and not (barred and generator.random() < 0.25) else 0,
        pitch=float(generator.choice((uniform(7, 12), uniform(15, 23), uniform(28, 40)), p=(0.3, 0.4, 0.3))),
        arm_contrast=uniform(0.45, 1) if spiral else 0.0,
        fuzziness=uniform(0, 0.3) if grand else uniform(0.6, 1),
        bar=uniform(mix.bar, 1) if barred else 0.0,
        ring=uniform(0.7, 1) if kind == "ring" else 0.0,
        disturbance=uniform(mix.disturbance, 1) if kind == "disturbed" else 0.0,
        clumps=uniform(0.7, 1) if kind == "irregular" else 0.0,
    )


@dataclass(frozen=True)
class CutoutTask:
    """One galaxy to draw: the path of its image, and the numbers that alone determine its pixels."""

    path: Path
    seed: int
    stream: int
    index: int


def _draw(task: CutoutTask, tree: Tree) -> Answers:
    """Write the image of a task, and return the answers to it."""
    generator = np.random.default_rng([task.seed, task.stream, task.index])
    galaxy = draw_galaxy(generator, mix_of(tree))
    answers = draw_answers(galaxy, tree, generator)
    draw_cutout(galaxy, generator).save(task.path, quality=JPEG_QUALITY)
    return answers


def _draw_all(tasks: Sequence[CutoutTask], tree: Tree, workers: int) -> Generator[Answers, None, None]:
    """Yield the answers to each task, in order, while `workers` processes draw the images (this process if 1)."""
    draw = partial(_draw, tree=tree)
    if workers == 1:
        yield from map(draw, tasks)
        return
    executor = ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn"), guard_worker)
    try:
        with starting_workers():
            drawn = executor.map(draw, tasks, chunksize=4)
        yield from drawn
    except BrokenProcessPool as error:
        raise worker_killed() from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _check(out: Path, galaxies: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: already exists and is not an empty folder: choose another --out")
    if not 1 <= galaxies <= IDS // 2:
        raise SettingError(f"--galaxies {galaxies}: the demo draws 1 to {IDS // 2:,} galaxies: choose a number in this range")


@dataclass(frozen=True)
class Name:
    """What a survey calls a galaxy. id: in its table; image: path of its image in a folder, without a suffix; file: the name of
    the image in the table that maps ids to files."""

    id: str
    image: str
    file: str


def name_galaxy(number: int, tree: Tree) -> Name:
    """The name of a galaxy in a tree's survey, from its number, 100,000 to 999,999: other numbers have other names.

    Named by position (J100403.94+182735.8, in folder J100), by the 18 digits of SDSS, by tile and object, or by the number.
    """
    plain = str(number)
    if tree.files:
        return Name(str(587_722_000_000_000_000 + 270_000_011 * number), plain, plain)
    if tree.id == "iauname":
        ticks = (number - 100_000) * 8_640_000 // IDS  # hundredths of a second of right ascension, 9.6 apart
        tenths = number * 7_919 % 1_800_000 - 648_000  # tenths of a second of arc of declination, -18 to +32 degrees
        (hours, minutes), seconds = divmod(ticks // 6_000, 60), ticks % 6_000
        (degrees, arcminutes), arcseconds = divmod(abs(tenths) // 600, 60), abs(tenths) % 600
        ascension = f"J{hours:02}{minutes:02}{seconds // 100:02}.{seconds % 100:02}"
        declination = f"{'-' if tenths < 0 else '+'}{degrees:02}{arcminutes:02}{arcseconds // 10:02}.{arcseconds % 10}"
        return Name(f"{ascension}{declination}", f"{ascension[:4]}/{ascension}{declination}", "")
    if tree.id in ("id_str", "dr8_id"):
        tile = 300_000 + number * 7_919 % 500
        return Name(f"{tile}_{number}", f"{tile}/{tile}_{number}", "")
    return Name(plain, plain, "")


def _inside(table: str) -> str:
    """The usual path of a survey's table; never one outside the folder."""
    usual = PurePosixPath(table)
    return usual.name if usual.is_absolute() or ".." in usual.parts else str(usual)


def votes_table(answers: Mapping[str, Answers], tree: Tree) -> str:
    """The answers to galaxies, by id, as the survey's table holds them: text of a CSV file in the first layout of its tree."""
    layout = tree.layouts[0]
    decimals = 9 if is_kaggle(tree) else 6  # predictions have nine, as Kaggle's votes do
    kept = [place for place, column in enumerate(tree.columns) if column not in tree.rest]
    header = [tree.id or "id", *(f"{tree.columns[place]}{layout.suffix}" for place in kept)]
    if layout.total:
        header += [f"{question.key}{layout.total}" for question in tree.questions]
    lines = [",".join(header)]
    for galaxy in sorted(answers):
        votes = answers[galaxy]
        if layout.kind == "counts":
            cells = [str(votes.counts[place]) for place in kept]
        else:
            fractions = votes.votes(tree) if layout.kind == "cumulative" else votes.shares(tree)
            cells = [f"{fractions[place]:.{decimals}f}" for place in kept]
        lines.append(",".join([galaxy, *cells, *(map(str, votes.asked) if layout.total else ())]))
    return "\n".join(lines) + "\n"


def _write_tables(folder: Path, tree: Tree, names: Sequence[Name], answers: Mapping[str, Answers]) -> None:
    """Write the table of votes, and the one that maps ids to files if the survey has one."""
    usual = next((table for table in tree.tables if table.endswith(".csv")), "votes.csv")
    tables = {usual: votes_table(answers, tree)}
    if tree.files:
        rows = sorted(f"{name.id},{name.file}" for name in names)
        tables[tree.files.table] = "\n".join([f"{tree.files.id},{tree.files.file}", *rows]) + "\n"
    for name, text in tables.items():
        path = folder / _inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def make_demo(out: str | Path, galaxies: int = 600, seed: int = 0, workers: int = 1, tree: str | Path | Tree = KAGGLE) -> None:
    """Draw a synthetic survey in the layout of a real one, Kaggle's by default, to try everything without a download.

    The bytes depend on `galaxies`, `seed` and `tree` alone, and a larger survey contains every image of a smaller one.
    The folder appears when the survey is complete.

    Parameters
    ----------
    out : str or Path
        Folder to create: images of 424 x 424 pixels and the table of votes.
    galaxies : int
        Number of galaxies with votes; a tenth as many are drawn without.
    seed : int
        Seed of the drawing.
    workers : int
        Number of processes. With several, call this below `if __name__ == "__main__":`.
    tree : str, Path or Tree
        Decision tree of the survey: one of ours by name, or a TOML file.

    Raises
    ------
    ConfigError
        If `out` is not empty.
    SettingError
        If `galaxies` or `workers` is out of range, or the tree asks about something that is not drawn.
    TreeError
        If there is no such tree.
    GalaxyZooError
        If a worker process was killed.

    Examples
    --------
    >>> from preprocess import make_demo
    >>> make_demo("small-demo", galaxies=10)
    """
    require_setting(workers >= 1, "workers", workers, "at least 1")
    tree = tree if isinstance(tree, Tree) else find_tree(tree)
    refuse_unanswerable(tree)
    out = local_path(out).resolve()
    _check(out, galaxies)
    numbers = np.random.default_rng([seed % 2**64]).permutation(IDS) + 100_000
    out.parent.mkdir(parents=True, exist_ok=True)
    partial_out = partial_path(out)
    folders = KAGGLE_FOLDERS if is_kaggle(tree) else FOLDERS
    tasks: list[CutoutTask] = []
    names: list[Name] = []
    for stream, (folder, chosen) in enumerate(zip(folders, (numbers[:galaxies], numbers[::-1][: galaxies // 10]), strict=True)):
        names += (named := [name_galaxy(number, tree) for number in chosen.tolist()])
        tasks += [
            CutoutTask(partial_out / folder / f"{name.image}.jpg", seed % 2**64, stream, index)
            for index, name in enumerate(named)
        ]
    partial_out.mkdir()
    try:
        for parent in {*(partial_out / folder for folder in folders), *(task.path.parent for task in tasks)}:
            parent.mkdir(parents=True, exist_ok=True)
        # Closed before a failure removes the folder: a worker still drawing would leave an image behind.
        with contextlib.closing(_draw_all(tasks, tree, workers)) as drawn:
            bar = progress_bar(len(tasks), "drawing galaxies", "galaxies", iterable=drawn)
            answers = dict(zip([name.id for name in names[:galaxies]], list(bar), strict=False))  # the rest have no votes
        _write_tables(partial_out, tree, names, answers)
        os.replace(partial_out, out)
    except BaseException:
        shutil.rmtree(partial_out, ignore_errors=True)
        raise
    sync_folder(out.parent)

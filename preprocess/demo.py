"""A small synthetic survey in Kaggle's layout: galaxies, and the votes that volunteers might have given.

The votes follow from how a galaxy was drawn: its parameters give the probability of each answer to every question of the
decision tree. Some forty volunteers then answer at random, each led through the tree by their own answers.
"""

import contextlib
import multiprocessing
import os
import shutil
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.engines import guard_worker, starting_workers, worker_killed
from preprocess.synthetic import Galaxy, draw_cutout
from tfrecords.errors import ConfigError, SettingError, require_setting
from tfrecords.files import local_path, partial_path, sync_folder, write_text
from tfrecords.progress import progress_bar
from tfrecords.taxonomy import COLUMNS, QUESTIONS

TRAINING, TEST, SOLUTIONS = "images_training_rev1", "images_test_rev1", "training_solutions_rev1.csv"
JPEG_QUALITY = 75  # that of the real cutouts, by their quantisation tables
IDS = 900_000  # with six digits


def draw_galaxy(generator: np.random.Generator) -> Galaxy:
    """A galaxy of a random type: 29 % smooth, 19 % edge-on, 25 % spiral, 16 % barred, the rest odd or not a galaxy."""
    uniform = generator.uniform
    kinds = ("smooth", "edge-on", "spiral", "barred", "ring", "irregular", "disturbed", "merger", "arc", "star", "trail")
    shares = (0.29, 0.19, 0.25, 0.16, 0.025, 0.02, 0.02, 0.02, 0.005, 0.015, 0.005)
    kind = generator.choice(kinds, p=shares)
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
        bar=uniform(0.6, 1) if barred else 0.0,
        ring=uniform(0.7, 1) if kind == "ring" else 0.0,
        disturbance=uniform(0.7, 1) if kind == "disturbed" else 0.0,
        clumps=uniform(0.7, 1) if kind == "irregular" else 0.0,
    )


def _logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _near(value: float, centres: Sequence[float] | np.ndarray, width: float) -> np.ndarray:
    """Probabilities of answers on a scale: the closer `value` is to the centre of an answer, the likelier the answer."""
    closeness = np.exp(-0.5 * ((value - np.asarray(centres)) / width) ** 2) + 1e-3
    return closeness / closeness.sum()


def _yes_no(yes: float) -> np.ndarray:
    return np.array([yes, 1 - yes])


def answer_probabilities(galaxy: Galaxy) -> tuple[np.ndarray, ...]:
    """The probability of each answer by a volunteer who is asked: one array per question, each adding up to 1."""
    g = galaxy
    no_galaxy = 0.92 if g.kind in ("star", "trail") else 0.012
    edge_on = g.kind == "edge-on"
    spiral = g.arm_contrast if g.arms else 0.0
    structure = max(0.9 * edge_on, spiral, g.bar, 0.9 * g.ring, 0.9 * g.clumps, 0.5 * g.disturbance, 0.35 * g.companion)
    featured = (1 - no_galaxy) * _logistic(7 * (structure - 0.42))
    odd = {  # ring, lens or arc, disturbed, irregular, other, merger, dust lane
        "ring": g.ring, "arc": g.arc, "disturbed": g.disturbance, "irregular": g.clumps, "other": 0.15,
        "merger": g.companion, "dust": (0.6 if edge_on else 0.9) * g.dust,
    }  # fmt: skip
    oddness = np.array([*odd.values()]) ** 2 + 0.01
    flat = 0.97 if edge_on else _logistic(22 * (0.34 - g.axis_ratio))
    countable = _near(g.arms or 2, (1, 2, 3, 4, 5.5), 0.45)
    lost = np.clip(0.08 + 0.75 * g.fuzziness + 0.3 * (0.8 - g.arm_contrast), 0, 0.95) if g.arms else 0.6
    has_bulge = 1 - np.exp(-g.bulge / 0.07) if edge_on else 0.9
    boxy = 0.05 + 0.6 * g.boxiness
    return (
        np.array([1 - no_galaxy - featured, featured, no_galaxy]),
        _yes_no(flat),
        _yes_no(0.96 * _logistic(9 * (g.bar - 0.38)) + 0.02),
        _yes_no(0.97 * _logistic(9 * (spiral - 0.28)) + 0.01),
        _near(np.sqrt(g.bulge), (0.0, 0.28, 0.48, 0.72), 0.085),
        _yes_no(0.95 * _logistic(8 * (max(value for name, value in odd.items() if name != "other") - 0.55)) + 0.03),
        _near(g.axis_ratio, (0.95, 0.64, 0.3), 0.11),
        oddness / oddness.sum(),
        np.array([has_bulge * (1 - boxy), has_bulge * boxy, 1 - has_bulge]),
        _near(np.log(g.pitch), np.log((9.5, 18.5, 33.5)), 0.22),
        np.append(countable * (1 - lost), lost),
    )


def draw_votes(galaxy: Galaxy, generator: np.random.Generator) -> np.ndarray:
    """Draw the vote fractions of 36 to 50 volunteers: float64 (37,), cumulative along the decision tree.

    A question is put to those whose answer leads to it; a column is the count of its answer over all volunteers.
    """
    volunteers = int(generator.integers(36, 51))
    counts = np.zeros(len(COLUMNS), np.int64)
    for question, probabilities in zip(QUESTIONS, answer_probabilities(galaxy), strict=True):
        asked = volunteers if question.parent is None else counts[question.parent]
        counts[question.columns] = generator.multinomial(asked, probabilities)
    return counts / volunteers


@dataclass(frozen=True)
class CutoutTask:
    """One galaxy to draw: the path of its image, and the numbers that alone determine its pixels."""

    path: Path
    seed: int
    stream: int
    index: int


def _draw(task: CutoutTask) -> np.ndarray:
    """Write the image of a task, and return its votes."""
    generator = np.random.default_rng([task.seed, task.stream, task.index])
    galaxy = draw_galaxy(generator)
    votes = draw_votes(galaxy, generator)
    draw_cutout(galaxy, generator).save(task.path, quality=JPEG_QUALITY)
    return votes


def _draw_all(tasks: Sequence[CutoutTask], workers: int) -> Generator[np.ndarray, None, None]:
    """Yield the votes of each task, in order, while `workers` processes draw the images (this process if 1)."""
    if workers == 1:
        yield from map(_draw, tasks)
        return
    executor = ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn"), guard_worker)
    try:
        with starting_workers():
            drawn = executor.map(_draw, tasks, chunksize=4)
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


def make_demo(out: str | Path, galaxies: int = 600, seed: int = 0, workers: int = 1) -> None:
    """Draw a synthetic survey in Kaggle's layout, to try everything without a download.

    The bytes depend on `galaxies` and `seed` alone, and a larger survey contains every image of a smaller one. The folder
    appears when the survey is complete.

    Parameters
    ----------
    out : str or Path
        Folder to create: images of 424 x 424 pixels and `training_solutions_rev1.csv`.
    galaxies : int
        Number of galaxies with votes; a tenth as many are drawn without.
    seed : int
        Seed of the drawing.
    workers : int
        Number of processes. With several, call this below `if __name__ == "__main__":`.

    Raises
    ------
    ConfigError
        If `out` is not empty.
    SettingError
        If `galaxies` or `workers` is out of range.
    GalaxyZooError
        If a worker process was killed.

    Examples
    --------
    >>> from preprocess import make_demo
    >>> make_demo("small-demo", galaxies=10)
    """
    require_setting(workers >= 1, "workers", workers, "at least 1")
    out = local_path(out).resolve()
    _check(out, galaxies)
    ids = np.random.default_rng([seed % 2**64]).permutation(IDS) + 100_000
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(out)
    tasks: list[CutoutTask] = []
    for stream, (folder, chosen) in enumerate(((TRAINING, ids[:galaxies]), (TEST, ids[::-1][: galaxies // 10]))):
        tasks += [
            CutoutTask(partial / folder / f"{galaxy_id}.jpg", seed % 2**64, stream, index)
            for index, galaxy_id in enumerate(chosen.tolist())
        ]
    partial.mkdir()
    try:
        for folder in (TRAINING, TEST):
            (partial / folder).mkdir()
        # Closed before a failure removes the folder: a worker still drawing would leave an image behind.
        with contextlib.closing(_draw_all(tasks, workers)) as drawn:
            bar = progress_bar(len(tasks), "drawing galaxies", "galaxies", iterable=drawn)
            votes = dict(zip(ids[:galaxies].tolist(), list(bar), strict=False))  # the rest have no votes
        rows = [",".join([str(galaxy_id), *(f"{vote:.9f}" for vote in votes[galaxy_id])]) for galaxy_id in sorted(votes)]
        write_text(partial / SOLUTIONS, "\n".join([",".join(["GalaxyID", *COLUMNS]), *rows]) + "\n")
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(out.parent)

"""How volunteers answer: led by the tree, as the galaxy was drawn, in the words of every survey."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from preprocess.demo import draw_galaxy, mix_of
from preprocess.synthetic import Galaxy
from preprocess.volunteers import answer_probabilities, draw_answers, publishes_counts, refuse_unanswerable
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import SettingError
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree

KAGGLE = builtin_tree("kaggle")
DECALS = builtin_tree("decals5")
SMOOTH = Galaxy("spheroid", radius=20, axis_ratio=0.95, position_angle=30, brightness=90, redness=0.9)
SPIRAL = Galaxy(
    "disk", radius=32, axis_ratio=0.9, position_angle=30, brightness=30, redness=0.2, bulge=0.2, sersic_index=1.5, arms=2,
    arm_contrast=0.9,
)  # fmt: skip
EDGE_ON = Galaxy("edge-on", radius=35, axis_ratio=0.12, position_angle=0, brightness=60, redness=0.5)
STAR = Galaxy("star", 6, 1.0, 0, 100, 0.5)
TRAIL = Galaxy("trail", 6, 1.0, 0, 100, 0.5)
every_tree = pytest.mark.parametrize("name", builtin_names())


@cache
def population(name: str) -> tuple[list[Galaxy], np.ndarray, np.ndarray, np.ndarray]:
    """600 galaxies as `demo --tree NAME` draws them: counts (600, n), asked (600, questions), votes (600, n). No image is
    drawn, which saves time."""
    tree = builtin_tree(name)
    galaxies, answers = [], []
    for index in range(600):
        generator = np.random.default_rng([0, 0, index])
        galaxies.append(draw_galaxy(generator, mix_of(tree)))
        answers.append(draw_answers(galaxies[-1], tree, generator))
    votes = np.stack([one.votes(tree) for one in answers])
    return galaxies, np.stack([one.counts for one in answers]), np.stack([one.asked for one in answers]), votes


def led_to(tree: Tree, counts: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """How many volunteers gave an answer that leads to each question: (galaxies, questions)."""
    return np.stack(
        [counts[:, list(q.parents)].sum(axis=1) if q.parents else asked[:, 0] for q in tree.questions], axis=1
    )  # fmt: skip


def mean_votes(galaxy: Galaxy, column: str, tree: Tree = KAGGLE) -> float:
    """The mean votes of 100 groups of volunteers."""
    generator = np.random.default_rng(0)
    return float(np.mean([draw_answers(galaxy, tree, generator).votes(tree)[tree.index[column]] for _ in range(100)]))


@every_tree
def test_every_answer_of_every_survey_is_given_by_somebody(name: str) -> None:
    _, counts, _, _ = population(name)
    never = [column for column, given in zip(builtin_tree(name).columns, counts.sum(axis=0), strict=True) if not given]
    assert never == []


@every_tree
def test_nobody_answers_a_question_without_an_answer_that_leads_to_it(name: str) -> None:
    tree = builtin_tree(name)
    _, counts, asked, _ = population(name)
    led = led_to(tree, counts, asked)
    assert (counts >= 0).all() and (asked <= led).all()
    assert (np.stack([counts[:, q.columns].sum(axis=1) for q in tree.questions], axis=1) == asked).all()
    assert (led == 0).any(), "no question was skipped: the test shows nothing"


@every_tree
def test_votes_obey_the_tree_where_anybody_was_asked(name: str) -> None:
    tree = builtin_tree(name)
    _, _, asked, votes = population(name)
    assert votes.min() >= 0 and votes.max() <= 1
    assert tree.deviation(votes, asked).max() <= 1e-9


def test_merging_is_asked_after_either_of_two_answers() -> None:
    _, counts, asked, _ = population("decals5")
    smooth, featured = (DECALS.index[f"smooth-or-featured_{answer}"] for answer in ("smooth", "featured-or-disk"))
    both = (counts[:, smooth] > 0) & (counts[:, featured] > 0)
    merging = next(q.index for q in DECALS.questions if q.key == "merging")
    assert (asked[both, merging] > np.maximum(counts[both, smooth], counts[both, featured])).mean() > 0.8


@every_tree
def test_crowds_are_those_of_a_survey_with_counts_or_without(name: str) -> None:
    tree = builtin_tree(name)
    _, counts, asked, _ = population(name)
    volunteers = asked[:, 0]
    left = asked < led_to(tree, counts, asked)
    assert publishes_counts(tree) == (name != "kaggle")
    if not publishes_counts(tree):
        assert set(volunteers) == set(range(36, 51)) and not left.any()
        return
    assert set(volunteers) == {*range(3, 8), *range(30, 41)}
    assert 0.28 < (volunteers >= 30).mean() < 0.4 and np.median(volunteers) == 5
    lost = left & (asked == 0)
    assert 0.02 < left.mean() < 0.2 and lost.any(), "now and then one leaves, so that nobody answers"


@every_tree
def test_answer_probabilities_are_probabilities(name: str) -> None:
    for galaxy in population(name)[0][:150]:
        for question, chances in zip(
            builtin_tree(name).questions, answer_probabilities(galaxy, builtin_tree(name)), strict=True
        ):
            assert len(chances) == len(question.answers) and chances.min() >= 0
            assert chances.sum() == pytest.approx(1)


def test_the_same_generator_gives_the_same_answers() -> None:
    first, second = (draw_answers(SPIRAL, DECALS, np.random.default_rng(1)) for _ in range(2))
    assert first.counts.tolist() == second.counts.tolist() and first.asked.tolist() == second.asked.tolist()


@every_tree
def test_a_model_that_sees_the_galaxy_would_beat_the_column_means_by_far(name: str) -> None:
    """Expected votes have at most half the error of the means, although both meet the noise of few votes."""
    tree = builtin_tree(name)
    galaxies, _, asked, votes = population(name)
    answered = np.repeat(asked > 0, [q.stop - q.start for q in tree.questions], axis=1)
    expected = np.stack([np.concatenate(answer_probabilities(galaxy, tree)) for galaxy in galaxies])
    for q in tree.questions:
        expected[:, q.columns] *= tree.reached(expected, q)[:, None]
    means = votes.sum(axis=0, where=answered) / answered.sum(axis=0)
    errors = [float(np.sqrt(np.mean((guess - votes) ** 2, where=answered))) for guess in (expected, means)]
    assert errors[0] < 0.5 * errors[1]


def test_votes_follow_the_drawn_galaxy() -> None:
    galaxies, _, _, votes = population("kaggle")

    def agreement(parameter: list[float], column: str, among: np.ndarray) -> float:
        return float(np.corrcoef(np.array(parameter)[among], votes[among, KAGGLE.index[column]])[0, 1])

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


def test_columns_are_as_varied_as_real_ones() -> None:
    means = dict(zip(KAGGLE.columns, population("kaggle")[3].mean(axis=0), strict=True))
    assert 0.25 < means["Class1.1"] < 0.5 and 0.5 < means["Class1.2"] < 0.7 and means["Class1.3"] < 0.1
    assert 0.8 < means["Class6.2"] < 0.9
    assert min(means.values()) > 0
    means = dict(zip(DECALS.columns, population("decals5")[3].mean(axis=0), strict=True))
    assert 0.4 < means["smooth-or-featured_smooth"] < 0.6 and 0.35 < means["smooth-or-featured_featured-or-disk"] < 0.55
    assert 0.65 < means["merging_none"] < 0.9 and 0.01 < means["merging_merger"] < 0.1


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
        (STAR, SMOOTH, "Class1.3"),
    ],
)
def test_volunteers_see_what_sets_a_galaxy_apart(galaxy: Galaxy, other: Galaxy, column: str) -> None:
    assert mean_votes(galaxy, column) > mean_votes(other, column) + 0.3


@pytest.mark.parametrize(
    ("name", "galaxy", "other", "column"),
    [
        ("decals5", replace(SPIRAL, bar=0.9), replace(SPIRAL, bar=0.4), "bar_strong"),
        ("decals5", replace(SPIRAL, bar=0.4), SPIRAL, "bar_weak"),
        ("decals5", replace(SPIRAL, bulge=0.6), SPIRAL, "bulge-size_dominant"),
        ("decals5", replace(SPIRAL, bulge=0.08), SPIRAL, "bulge-size_small"),
        ("decals5", replace(SPIRAL, bulge=0.0), SPIRAL, "bulge-size_none"),
        ("decals5", replace(SPIRAL, disturbance=0.5), SPIRAL, "merging_minor-disturbance"),
        ("decals5", replace(SPIRAL, disturbance=1.0), SPIRAL, "merging_major-disturbance"),
        ("decals5", replace(SMOOTH, companion=1.0), SMOOTH, "merging_merger"),
        ("decals12", replace(SPIRAL, disturbance=1.0), SPIRAL, "merging_tidal-debris"),
        ("decals12", replace(SMOOTH, companion=1.0), SMOOTH, "merging_merger"),
        ("gz2", replace(SMOOTH, companion=1.0), SMOOTH, "t08_odd_feature_a24_merger"),
        ("desi", replace(SPIRAL, pitch=35.0), SPIRAL, "spiral-winding-dr8_loose"),
        ("euclid", replace(SPIRAL, clumps=1.0), SPIRAL, "clumps-euclid_yes"),
        ("euclid", STAR, TRAIL, "problem-euclid_star"),
        ("euclid", TRAIL, STAR, "artifact-euclid_satellite"),
    ],
)
def test_volunteers_of_other_surveys_do_so_in_their_words(name: str, galaxy: Galaxy, other: Galaxy, column: str) -> None:
    tree = builtin_tree(name)
    assert mean_votes(galaxy, column, tree) > mean_votes(other, column, tree) + 0.2


def question(key: str, *answers: str) -> Tree:
    pairs = ", ".join(f'"{answer}" = "{key}_{place}"' for place, answer in enumerate(answers))
    return parse_tree(f'[[question]]\nkey = "{key}"\nanswers = {{ {pairs} }}', "mine.toml", "mine")


@pytest.mark.parametrize(
    ("tree", "galaxy", "place"),
    [
        (question("ring", "ring", "no ring"), replace(SPIRAL, ring=1.0), 0),
        (question("ring", "no", "yes"), replace(SPIRAL, ring=1.0), 1),
        (question("How_Rounded-mine", "Cigar-shaped", "Completely_round"), SMOOTH, 1),
        (question("bar", "none", "bar"), SPIRAL, 0),
        (question("spiral-arm-count", "1", "2", "3", "4"), SPIRAL, 1),
    ],
)
def test_a_question_is_recognised_by_its_words(tree: Tree, galaxy: Galaxy, place: int) -> None:
    [chances] = answer_probabilities(galaxy, tree)
    assert chances.argmax() == place and chances.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        (question("colour", "red", "blue"), r"'colour' \(red, blue\)"),
        (question("bar", "long", "short"), r"'bar' \(long, short\)"),
        (question("barometer", "yes", "no"), r"'barometer' \(yes, no\)"),
        (question("how-rounded", "round", "completely round"), r"'how-rounded' \(round, completely round\)"),
    ],
)
@pytest.mark.parametrize("use", [refuse_unanswerable, lambda tree: answer_probabilities(SMOOTH, tree)])
def test_a_question_about_what_is_not_drawn_is_refused_in_one_line(
    tree: Tree, named: str, use: Callable[[Tree], object]
) -> None:
    with pytest.raises(
        SettingError, match=rf"^--tree mine: .* question {named}: choose from kaggle, decals12, decals5,"
    ) as error:
        use(tree)
    assert "\n" not in str(error.value)


@every_tree
def test_all_our_trees_can_be_answered(name: str) -> None:
    refuse_unanswerable(builtin_tree(name))

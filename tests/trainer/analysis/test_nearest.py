"""The nearest galaxies are those of a plain computation over all of them, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.analysis.nearest import Near, nearest


def _features(galaxies: int, dimension: int = 32, seed: int = 0) -> np.ndarray:
    """Features as those after a ReLU: half of them are zero."""
    return np.maximum(np.random.default_rng(seed).normal(0, 1, (galaxies, dimension)), 0).astype(np.float32)


def _in_blocks(ids: np.ndarray, features: np.ndarray, size: int, queries: list[int], count: int) -> list[list[Near]]:
    blocks = (
        (ids[start : start + size], [*map(str, ids[start : start + size].tolist())], features[start : start + size])
        for start in range(0, len(ids), size)
    )
    return nearest(features[queries], ids[queries].tolist(), blocks, count)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_nearest_are_those_of_all_distances_sorted(size: int) -> None:
    features = _features(300)
    ids = np.random.default_rng(1).permutation(10_000)[:300]
    near = _in_blocks(ids, features, size, [0, 17, 299], 12)
    for query, several in zip([0, 17, 299], near, strict=True):
        wide = features.astype(np.float64)
        cosine = wide @ wide[query] / np.linalg.norm(wide, axis=1) / np.linalg.norm(wide[query])
        order = [row for row in np.argsort(1 - cosine) if row != query][:12]
        assert [galaxy_id for _, galaxy_id, _ in several] == ids[order].tolist()
        assert [called for *_, called in several] == [*map(str, ids[order].tolist())]
        np.testing.assert_allclose([distance for distance, *_ in several], 1 - cosine[order], atol=1e-12)


@given(size=st.integers(1, 60), count=st.integers(1, 60), seed=st.integers(0, 5))
def test_the_blocks_change_nothing_not_even_the_last_digit(size: int, count: int, seed: int) -> None:
    features = _features(40, seed=seed)
    features[7] = features[3] = features[21]  # copies of one galaxy
    assert _in_blocks(np.arange(40), features, size, [3, 5], count) == _in_blocks(np.arange(40), features, 40, [3, 5], count)


def test_a_galaxy_is_not_near_itself_but_its_copies_are_by_their_ids() -> None:
    features = _features(20)
    features[[4, 11, 13]] = features[2] * np.array([[1], [2], [1]])  # brighter, in the same direction
    [near] = _in_blocks(np.arange(20), features, 6, [2], 4)
    assert [galaxy_id for _, galaxy_id, _ in near][:3] == [4, 11, 13]
    assert [distance for distance, *_ in near][:3] == pytest.approx([0, 0, 0], abs=1e-12) and near[3][0] > 0.01


def test_fewer_galaxies_than_asked_for_are_all_listed() -> None:
    near = _in_blocks(np.arange(5), _features(5), 2, [0, 1], 100)
    assert [sorted(galaxy_id for _, galaxy_id, _ in several) for several in near] == [[1, 2, 3, 4], [0, 2, 3, 4]]
    assert _in_blocks(np.arange(1), _features(1), 2, [0], 3) == [[]]


def test_features_that_are_all_zero_are_at_distance_1() -> None:
    features = _features(4)
    features[2] = 0
    [near] = _in_blocks(np.arange(4), features, 4, [0], 3)
    assert {galaxy_id: distance for distance, galaxy_id, _ in near}[2] == 1

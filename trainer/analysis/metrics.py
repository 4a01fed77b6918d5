"""Pure: how far predictions are from the votes, beside baselines, with intervals.

Arrays are (galaxies, 37), vote fractions in 0..1. RMSE is the challenge's measure: the root of the mean of all
squared differences over galaxies and columns.
"""

from dataclasses import dataclass

import numpy as np

from tfrecords.taxonomy import COLUMNS, QUESTIONS

RESAMPLES = 1000


@dataclass(frozen=True)
class Scores:
    """mse: over everything; per_class: MSE per column (37,); per_question: MSE per question (11,);

    interval: 95 % bootstrap interval of the RMSE, resampling galaxies.
    """

    mse: float
    per_class: np.ndarray
    per_question: np.ndarray
    interval: tuple[float, float]

    @property
    def rmse(self) -> float:
        return float(np.sqrt(self.mse))


def squared_errors(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(predicted - targets)^2 in float64."""
    return (np.asarray(predicted, np.float64) - np.asarray(targets, np.float64)) ** 2


def bootstrap_interval(per_galaxy: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of sqrt(mean) of `per_galaxy` (n,), squared errors, under resampling of galaxies."""
    draws = np.random.default_rng(seed)
    roots = [np.sqrt(per_galaxy[draws.integers(0, len(per_galaxy), len(per_galaxy))].mean()) for _ in range(resamples)]
    low, high = np.percentile(roots, (2.5, 97.5))
    return float(low), float(high)


def score(predicted: np.ndarray, targets: np.ndarray) -> Scores:
    """All scores of predictions against the votes."""
    errors = squared_errors(predicted, targets)
    per_question = np.array([errors[:, question.columns].mean() for question in QUESTIONS])
    return Scores(float(errors.mean()), errors.mean(axis=0), per_question, bootstrap_interval(errors.mean(axis=1)))


def baselines(targets: np.ndarray, train_means: np.ndarray | None) -> dict[str, float]:
    """RMSE of predicting zeros, and the column means of `train` (37,), for every galaxy."""
    values = {"zeros": float(np.sqrt(squared_errors(np.zeros(len(COLUMNS)), targets).mean()))}
    if train_means is not None:
        values["train_mean"] = float(np.sqrt(squared_errors(train_means, targets).mean()))
    return values

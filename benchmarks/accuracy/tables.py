"""Tables of finished runs, as Markdown: differences in RMSE on the same galaxies."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrecords.tree import column_means
from trainer.analysis.metrics import paired_differences

RESAMPLES = 10_000


def difference(errors: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """RMSE minus that of `base` on the same galaxies, and the limits of its 95 % bootstrap interval over galaxies.

    errors, base: (n,), the mean squared error of each galaxy.
    """
    [(value, low, high)] = paired_differences(errors[:, None], base[:, None], RESAMPLES)
    return float(value), float(low), float(high)


def verdict(found: tuple[float, float, float], base_scores: Sequence[float]) -> str:
    """Whether the interval excludes zero and the difference exceeds the spread of `base` over at least three seeds."""
    if len(base_scores) < 3:
        return "base has too few seeds"
    if abs(found[0]) <= max(base_scores) - min(base_scores) or found[1] <= 0 <= found[2]:
        return "no difference shown"
    return "helps" if found[0] < 0 else "harms"


def _interval(values: tuple[float, float, float]) -> str:
    return f"{values[0]:+.4f} ({values[1]:+.4f} to {values[2]:+.4f})"


def _range(scores: Sequence[float]) -> str:
    return f"{min(scores):.4f} to {max(scores):.4f}" if len(scores) > 1 else ""


def _scores(errors: Sequence[np.ndarray]) -> list[float]:
    return [float(np.sqrt(one.mean())) for one in errors]


def _seconds(work: Any, trials: Sequence[Any], kind: str) -> str:
    """The mean time of the trials; empty if a run was not timed."""
    known: list[Any] = [(work.result(trial) or {}).get(kind) for trial in trials]
    return "" if None in known else f"{np.mean(known):,.0f}"


def _commits(work: Any, groups: dict[str, list[Any]]) -> str:
    """The commits of the code that trained the runs."""
    found = {(work.result(trial) or {}).get("commit") or "unknown" for trials in groups.values() for trial in trials}
    return f"Trained at commit {', '.join(sorted(found))}."


def _print(title: str, *lines: str) -> None:
    print(f"### {title}\n", *lines, "", sep="\n")


def _table(*rows: Sequence[str]) -> list[str]:
    header, *others = rows
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *others)]


def print_screen(work: Any, trials: Sequence[Any]) -> None:
    """Print one change at a time, compared with the mean over the seeds of `base`."""
    groups = work.groups(trials)
    errors = {
        label: [work.errors(work.predicted(trial, "validation"), "validation") for trial in those]
        for label, those in groups.items()
    }
    if "base" not in errors:
        return
    base, scores = np.mean(errors["base"], axis=0), _scores(errors["base"])
    rows = []
    for label, those in groups.items():
        mean = np.mean(errors[label], axis=0)
        found = difference(mean, base)
        times = [_seconds(work, those, kind) for kind in ("seconds", "cpu_seconds")]
        beside = ["", ""] if label == "base" else [_interval(found), verdict(found, scores)]
        score = f"{np.sqrt(mean.mean()):.4f}"
        rows.append([label, str(len(those)), score, _range(_scores(errors[label])), *beside, *times])
    header = ("change", "seeds", "RMSE", "range over seeds", "minus `base` (95 %)", "verdict", "s", "CPU s")
    title = f"One change at a time, {trials[0].epochs} epochs, {len(base):,} galaxies of `validation`"
    spread = f"Spread of `base` over its seeds: {max(scores) - min(scores):.4f}. {_commits(work, groups)}"
    _print(title, spread, "", *_table(header, *rows))


def print_confirmed(work: Any, trials: tuple[Any, ...], split: str) -> None:
    """Print the longer runs compared with `best`, each the mean over its seeds; then improvements without training."""
    groups = work.groups(trials)
    if not groups:
        return
    errors = {label: [work.errors(work.predicted(trial, split), split) for trial in those] for label, those in groups.items()}
    rows = []
    for label, those in groups.items():
        mean = np.mean(errors[label], axis=0)
        score, beside, share = np.sqrt(mean.mean()), "", ""
        if label != "best" and "best" in errors:
            found = difference(np.mean(errors["best"], axis=0), mean)
            beside, share = _interval(found), f"{found[0] / score:+.1%}"
        times = [_seconds(work, those, kind) for kind in ("seconds", "cpu_seconds")]
        rows.append([label, str(len(those)), f"{score:.4f}", _range(_scores(errors[label])), beside, share, *times])
    header = ("recipe", "seeds", "RMSE", "range over seeds", "`best` minus recipe (95 %)", "in %", "s per run", "CPU s per run")
    title = f"{trials[0].epochs} epochs, {len(work.votes(split)[0]):,} galaxies of `{split}`"
    blind = work.errors(column_means(work.votes("train")[1]), split)
    floor = f"The column means of `train`: {np.sqrt(blind.mean()):.4f}."
    _print(title, f"{floor} {_commits(work, groups)}", "", *_table(header, *rows))
    _print(f"Without further training, `{split}`", *_without_training(work, groups, split))


def _without_training(work: Any, groups: dict[str, list[Any]], split: str) -> list[str]:
    """The table of views, projection onto the tree, and averages of runs."""
    from tfrecords.builtin import builtin_tree

    rows = []
    for label, trials in groups.items():
        single = [work.predicted(trial, split) for trial in trials]
        plain = np.mean([work.errors(one, split) for one in single], axis=0)
        ways = {"projected onto the tree": [builtin_tree().project(one) for one in single]}
        if len(trials) > 1:
            ways[f"mean of {len(trials)} seeds"] = [np.mean(single, axis=0)]
        if not trials[0].plain:
            eight = [work.predicted(trial, split, 8) for trial in trials]
            ways["8 views"] = eight
            if len(trials) > 1:
                ways[f"8 views, mean of {len(trials)} seeds"] = [np.mean(eight, axis=0)]
        for way, made in ways.items():
            errors = np.mean([work.errors(one, split) for one in made], axis=0)
            rows.append([label, way, f"{np.sqrt(errors.mean()):.4f}", _interval(difference(errors, plain))])
    return _table(("runs", "method", "RMSE", "minus single runs, one view (95 %)"), *rows)

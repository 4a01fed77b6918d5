"""Where a run resumes: after its last step, or on machines that cannot continue its epoch, before this epoch."""

from dataclasses import dataclass, replace
from pathlib import Path

from tfrecords.errors import ConfigError, RunError
from trainer.backends.base import Devices
from trainer.run import Run
from trainer.saving import NOTHING_YET, Progress


@dataclass(frozen=True)
class ResumePoint:
    """The progress of a run with these devices, as its next checkpoint holds it.

    streams: those of the next batches. within: whether its checkpoint may be one within an epoch. line: to print, if any.
    """

    progress: Progress
    streams: int
    within: bool = True
    line: str = ""

    @property
    def has_state(self) -> bool:
        """Whether there is a checkpoint to restore."""
        return bool(self.progress.finished or self.progress.steps)


def resume_point(
    run: Run, is_new: bool, precision: str, devices: Devices, steps_per_epoch: int, batch_size: int
) -> ResumePoint:
    """Where a run resumes. Raises ConfigError for another backend or precision than its own.

    The number of streams determines the order of an epoch. Processes that cannot divide it among them would repeat galaxies
    of an interrupted epoch and omit others: they begin it again. Raises RunError if the checkpoint before it was not saved.
    """
    from trainer.input.training import stream_count

    progress = NOTHING_YET if is_new else run.progress()
    _check_precision(precision, progress, devices, run.folder)
    processes = devices.share.processes
    streams = stream_count(batch_size, processes, progress.streams)
    # In an epoch that an earlier version began, its number is unknown.
    here = replace(progress, precision=devices.precision, backend=devices.backend)
    if not 0 < progress.steps < steps_per_epoch or progress.streams == streams:
        return ResumePoint(replace(here, streams=streams), streams)
    if not progress.streams:
        return ResumePoint(here, streams)
    before, number = run.progress(within=False), progress.finished + 1
    if before.finished < progress.finished:
        raise RunError(
            f"{run.folder}: epoch {number} would have to begin again, since {processes} processes cannot divide its "
            f"{progress.streams} streams of galaxies, but the checkpoint before it was not saved: resume with as many "
            "processes as before"
        )
    line = (
        f"{run.folder}: epoch {number} begins again: {processes} processes cannot divide the {progress.streams} streams of "
        f"galaxies that its first {progress.steps} steps read"
    )
    return ResumePoint(replace(here, history=before.history, steps=0, streams=streams), streams, False, line)


def _check_precision(precision: str, progress: Progress, devices: Devices, folder: Path) -> None:
    """Raise ConfigError if the checkpoint has another backend or precision; --precision `auto` may differ on this machine."""
    if progress.backend and progress.backend != devices.backend:
        raise ConfigError(
            f"{folder}: was started on the {progress.backend} backend, but this is {devices.backend}: resume with "
            f"KERAS_BACKEND={progress.backend}, or start again with --overwrite"
        )
    if progress.precision and progress.precision != devices.precision:
        raise ConfigError(
            f"{folder}: was started with precision {progress.precision}, but --precision {precision} means "
            f"{devices.precision} on this machine: resume it on a machine like the first, or start again with --overwrite"
        )

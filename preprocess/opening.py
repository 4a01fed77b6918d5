"""A job: what a dataset is to be built from and how, and what follows from a look at its source."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from preprocess import plan, surveys, versions
from preprocess.fitting import Wanted
from preprocess.plan import ShardPlan
from preprocess.settings import BuildSettings
from preprocess.sources import chosen_look
from preprocess.survey import Survey
from tfrecords.dataset import sha256_text
from tfrecords.fits.look import SDSS, Look, as_settings
from tfrecords.tree import Tree


@dataclass(frozen=True)
class Request:
    """What a dataset is to be built from, and how. See `job.build_dataset` for the fields."""

    src: Path
    settings: BuildSettings
    solutions: Path | None
    tree: Tree | None
    votes: str
    id_column: str
    path_column: str
    look: Look

    def asked(self) -> dict[str, Any]:
        """All of it as JSON, flat."""
        return {
            **self.settings.flat(),
            "src": str(self.src.resolve()),
            "solutions": None if self.solutions is None else str(self.solutions.resolve()),
            "tree": None if self.tree is None else f"{self.tree.name} {sha256_text(self.tree.text)}",
            "votes": self.votes,
            "id_column": self.id_column,
            "path_column": self.path_column,
            "bands": [*self.look.bands],
            **asdict(self.look.stretch),
        }


@dataclass(frozen=True)
class Job:
    """A request whose source was looked at.

    record: the settings, source and versions that must be the same when it resumes, as JSON. look: how FITS images are drawn,
    None without any. stretched: a sentence about the stretch that was chosen for them, or empty.
    """

    survey: Survey
    shards: list[ShardPlan]
    record: dict[str, Any]
    look: Look | None
    stretched: str = ""

    @property
    def images(self) -> int:
        """The number of images of all shards."""
        return sum(len(shard.rows) for shard in self.shards)

    def warnings(self) -> Iterator[str]:
        """A sentence for each oddity."""
        yield from self.survey.all_warnings(self.shards)
        if self.stretched:
            yield self.stretched


def _drawn(survey: Survey, request: Request) -> tuple[Look | None, str]:
    """How the FITS images of a survey are drawn, None if it has none; and a sentence about the stretch that was chosen.

    Raises SettingError for a look that was asked for without FITS images.
    """
    sample = survey.fits_images()
    if not len(sample):
        request.look.refuse_without_fits(survey.path)
        return None, ""
    look, choice = chosen_look(sample, request.settings.crop.crop_fraction, SDSS, request.look, "those of SDSS")
    return look, f"FITS images: --fits_stretch {look.stretch.stretch:g} chosen, as {choice.reason}" if choice.reason else ""


def survey_for(request: Request, work: Path) -> Survey:
    """Read the listing and the votes of the source. Raises SourceError if it cannot be used."""
    wanted = Wanted(request.tree, request.votes, request.id_column, request.path_column)
    return surveys.survey_of(request.src, work, request.solutions, wanted)


def open_job(request: Request, survey: Survey) -> Job:
    """Plan the shards of a survey."""
    columns = {"id_column": request.id_column, "path_column": request.path_column}
    chosen = {name: column for name, column in columns.items() if column}
    look, stretched = _drawn(survey, request)
    settings = {**request.settings.flat(), "tree": survey.tree_name, "votes": survey.layout, **chosen, **as_settings(look)}
    record = {
        "settings": settings,
        "source": survey.summary(),
        "tool": versions.tool(look is not None),
        "path": str(request.src.resolve()),
    }
    return Job(survey, plan.make(survey.galaxies, request.settings.plan), record, look, stretched)

"""Properties of the images: size and brightness of the galaxies, and how much of their light the crop keeps."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from preprocess.sources import ImageReader, picture_in, warnings_of_fits
from preprocess.surveys import images_of
from tfrecords import images
from tfrecords.dataset import REJECTED
from tfrecords.emptiness import NO_GALAXY, light_of, no_galaxy
from tfrecords.errors import ConfigError, ImageError
from tfrecords.fits.look import from_settings
from tfrecords.progress import progress_bar
from tfrecords.text import cell
from trainer.analysis import figures, galleries, wording
from trainer.analysis.labelled import LabelledGalaxies
from trainer.analysis.page import Card, Chart, Gallery, Section
from trainer.analysis.table import Table
from trainer.images.photometry import Photometry, light_kept, photometry, scale_range

_BATCH = 256
# Whole images that are read to measure what the crop keeps: enough for quantiles, and read in a second or two.
_WHOLE_IMAGES = 1000


def _measured(labelled: LabelledGalaxies) -> tuple[np.ndarray, Photometry, dict[int, str]]:
    """GalaxyIDs and photometry of all labelled galaxies, in stored order; and those without a galaxy, with the reason."""
    from trainer.input.evaluation import evaluation_batches

    ids, parts = [], []
    empty: dict[int, str] = {}
    with progress_bar(len(labelled.galaxy_ids), "measuring", "galaxies") as bar:
        for split in labelled.splits:
            for galaxy_ids, pixels, _ in evaluation_batches(labelled.dataset, split, _BATCH).as_numpy_iterator():
                ids.append(galaxy_ids)
                parts.append(photometry(pixels))
                reasons = ((int(galaxy), no_galaxy(light_of(image))) for galaxy, image in zip(galaxy_ids, pixels, strict=True))
                empty |= {galaxy: reason for galaxy, reason in reasons if reason}
                bar.update(len(galaxy_ids))
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("half_light_radius", "background", "peak"))
    return np.concatenate(ids), Photometry(*columns), empty


def light(labelled: LabelledGalaxies, source: Path | None) -> Section:
    """The section on the images of a dataset; with `source`, its original images, also what the crop keeps of their light."""
    # The source comes first, as it may be refused: measuring a large survey takes minutes.
    text = "To see how much of a galaxy's light the crop keeps, give --src the folder or zip that was preprocessed."
    text, *gallery = (text,) if source is None else _before_and_after(labelled, source)
    ids, measured, empty = _measured(labelled)
    names = _names(labelled)
    shown = [cell(names[galaxy_id]) if galaxy_id in names else galaxy_id for galaxy_id in ids.tolist()]
    low, high = scale_range(measured.half_light_radius)
    panels = [
        ("half-light radius (pixels)", measured.half_light_radius),
        ("background (of 255)", measured.background),
        ("peak brightness (of 255)", measured.peak),
    ]
    chart = Chart(
        "light",
        f"Half-light radii: 98 % of the galaxies between {low:.1f} and {high:.1f} pixels, median "
        f"{np.median(measured.half_light_radius):.1f}",
        "Size and brightness of the galaxies in the stored crops: the radius that holds half of a galaxy's light, the median "
        "of the border, and the brightest pixel. Dotted lines: 1 % and 99 % quantiles. A model trained on this dataset expects "
        "galaxies of this size.",
        lambda width: figures.draw_histograms(width, [(label, values, scale_range(values)) for label, values in panels]),
        Table(
            (wording.id_name(labelled.tree), "half_light_radius", "background", "peak"),
            tuple(zip(shown, measured.half_light_radius, measured.background, measured.peak, strict=True)),
        ),
    )
    return Section("light", "The images", (text, *_without_galaxy(labelled, empty)), (chart, *gallery))


def _without_galaxy(labelled: LabelledGalaxies, empty: dict[int, str]) -> Iterator[str]:
    """Sentences about the images that the build left out, and those that it stored although they show no galaxy."""
    reasons = labelled.dataset.reasons()
    if reasons:
        blank = sum(reason.startswith(NO_GALAXY) for reason in reasons)
        images = "1 image was" if len(reasons) == 1 else f"{len(reasons):,} images were"
        yield f"{images} left out when the dataset was built, {blank:,} for showing no galaxy; see {REJECTED}."
    if empty:
        names, first = _names(labelled), next(iter(empty))
        images = "1 stored image shows" if len(empty) == 1 else f"{len(empty):,} stored images show"
        yield f"{images} no galaxy, first {cell(names.get(first, str(first)))}: {empty[first]}."


def _names(labelled: LabelledGalaxies) -> dict[int, str]:
    """The names of galaxies by id; none if they are numbers."""
    return {} if labelled.names is None else dict(zip(labelled.galaxy_ids.tolist(), labelled.names, strict=True))


def _rows(labelled: LabelledGalaxies, source: Path, ids: np.ndarray) -> np.ndarray:
    """The rows of the images to show and measure, by GalaxyID: the first labelled galaxies, and others evenly spaced.

    ids: of the images of a source.
    """
    rows = np.flatnonzero(np.isin(ids, labelled.galaxy_ids))
    if not len(rows):
        raise ConfigError(
            f"{source}: none of its images is a galaxy of {labelled.dataset.folder}: give --src the images that were "
            "preprocessed"
        )
    rows = rows[np.argsort(ids[rows], kind="stable")]
    spread = np.linspace(0, len(rows) - 1, min(len(rows), _WHOLE_IMAGES)).astype(int)
    return np.asarray(rows[np.union1d(np.arange(min(galleries.CARDS, len(rows))), spread)])


def _before_and_after(labelled: LabelledGalaxies, source: Path) -> tuple[str, Gallery]:
    fraction, size = labelled.dataset.settings["crop_fraction"], labelled.dataset.size
    names = _names(labelled)
    cards: list[Card] = []
    kept: list[float] = []
    look = from_settings(labelled.dataset.settings)
    with tempfile.TemporaryDirectory() as scratch, ImageReader() as reader, warnings_of_fits(look):
        listing = images_of(source, Path(scratch), labelled.dataset, lambda ids: _rows(labelled, source, ids))
        for row in range(len(listing)):
            try:
                picture, _ = picture_in(listing.path(row), reader.read(listing, row), look)
            except ImageError:  # preprocess has listed it in rejected.csv
                continue
            whole = picture.pixels
            kept.append(light_kept(whole, fraction))
            if len(cards) < galleries.CARDS:
                pictures = (images.crop(whole, 1.0, size), images.crop(whole, fraction, size))
                galaxy_id = int(listing.galaxy_id[row])
                cards.append(Card(galaxy_id, pictures, f"keeps {kept[-1]:.0%} of the light", name=names.get(galaxy_id, "")))
    if not kept:
        raise ConfigError(
            f"{source}: none of the dataset's galaxies can be read from it: give --src the images that were preprocessed"
        )
    low, median, high = np.percentile(kept, (5, 50, 95))
    text = (
        f"The crop keeps a centred square of {fraction:.0%} of the shorter side. In the median image it holds {median:.0%} of "
        f"the light above the background ({low:.0%} to {high:.0%} in nine of ten; {len(kept):,} images). Neighbours and bright "
        "sky outside the crop count as lost light."
    )
    by = wording.id_name(labelled.tree)
    caption = f"Above, the centred square of each image; below, the stored crop. These are the first galaxies by {by}."
    alt = ("before the crop", "after the crop")
    return text, Gallery("crop", "Before and after the crop", caption, alt, tuple(cards), by)

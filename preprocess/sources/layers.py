"""Galaxies that have one FITS file per band: NAME_g.fits, NAME-r.fits and NAME.z.fits are one image, NAME.fits."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from preprocess.sources.identity import hashed_id, number_of
from preprocess.sources.listing import BANDS, FITS_SUFFIXES, Listing, without_suffix
from tfrecords.fits.bands import band_of_file, wavelength


def is_fits(path: str) -> bool:
    """Whether a file is FITS by its name, packed or not."""
    return path.lower().endswith(FITS_SUFFIXES)


class _Layer(NamedTuple):
    row: int
    band: str


def grouped(images: Listing) -> Listing:
    """Join the files of one galaxy: those in one folder whose names differ in the band alone.

    A galaxy with a single such file is joined too, if at least half of the galaxies have its band and others: it is then known
    what it lacks. images: as found, before galaxies have names.
    """
    groups: dict[tuple[int, str], list[_Layer]] = {}
    for row in range(len(images)):
        if not is_fits(path := images.path(row)):
            continue
        name, band = band_of_file(without_suffix(path).rpartition("/")[2])
        if band:
            groups.setdefault((int(images.place[row]), name), []).append(_Layer(row, band))
    bands = {key: {layer.band for layer in layers} for key, layers in groups.items()}
    counts = Counter(band for theirs in bands.values() for band in theirs)
    usual = tuple(sorted((band for band, count in counts.items() if 2 * count >= len(groups)), key=wavelength))
    if len(usual) < 2 or max(map(len, bands.values()), default=0) < 2:
        usual = ()
    whole = {key: layers for key, layers in groups.items() if len(bands[key]) > 1 or not bands[key].isdisjoint(usual)}
    return _joined(images, list(whole.items()), usual) if whole else images


def _joined(images: Listing, groups: Sequence[tuple[tuple[int, str], list[_Layer]]], usual: tuple[str, ...]) -> Listing:
    """Replace the files of each group by one image of method BANDS."""
    layers = [sorted(of_group, key=lambda layer: (wavelength(layer.band), layer.row)) for _, of_group in groups]
    rows = np.array([layer.row for of_group in layers for layer in of_group])
    kept = np.setdiff1d(np.arange(len(images)), rows)
    names = [os.fsencode(f"{name}.fits") for (_, name), _ in groups]
    places = [place for (place, _), _ in groups]
    numbers = [number_of(name, images.places[place].split) for place, name in zip(places, names, strict=True)]
    count = np.array([len(of_group) for of_group in layers], np.uint8)
    first = np.cumsum(count, dtype=np.int64) - count
    sizes = np.add.reduceat(images.size[rows].astype(np.uint64), first)
    alone = images.rows(kept)
    columns = {
        "galaxy_id": [
            hashed_id(images.places[place].folder + name) if number < 0 else number
            for number, place, name in zip(numbers, places, names, strict=True)
        ],
        "place": places,
        "position": np.zeros(len(groups)),
        "stored": np.zeros(len(groups)),
        "size": np.minimum(sizes, 2**32 - 1),
        "crc": np.zeros(len(groups)),
        "method": np.full(len(groups), BANDS),
        "named": [number < 0 for number in numbers],
        "name_length": [len(name) for name in names],
    }
    starts = np.cumsum([0, *(len(name) for name in names)])[:-1] + len(images.names)
    columns["name_start"] = starts
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(alone, name), np.asarray(values).astype(getattr(alone, name).dtype)])
        for name, values in columns.items()
    }
    return replace(
        alone,
        names=images.names + b"".join(names),
        **joined,
        files=images.rows(rows),
        first=np.concatenate([np.zeros(len(kept), np.int64), first]),
        count=np.concatenate([np.zeros(len(kept), np.uint8), count]),
        usual=usual,
    )

"""One listing of a source's images for all processes that predict shares of it: the first makes it, the others wait."""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from preprocess.sources import FITS_SUFFIXES, Listing, is_fits, load_listing, save_listing
from tfrecords.fits.planes import quiet, require_astropy
from tfrecords.locks import one_at_a_time
from trainer.images.cutouts import listed


def _kept(path: Path, folder: Path) -> Path:
    """The file for the listing of a source; another source, or another way to write its path, has another one."""
    digest = hashlib.sha256(f"{path.absolute()}\n{path}".encode("utf-8", "surrogateescape")).hexdigest()
    return folder / f"listing-{digest[:16]}.npz"


def _lasts(images: Listing, path: Path) -> bool:
    """Whether other processes can read the images too: not those in copies of zips that were compressed inside a zip."""
    if Path(tempfile.gettempdir()).is_relative_to(path.absolute()):  # then a copy may look like a part of the source
        return False
    return all(place.container == path.parent or place.container.is_relative_to(path) for place in images.places)


@contextlib.contextmanager
def listed_once(path: Path, folder: Path) -> Iterator[Listing]:
    """The images that `listed` returns, readable within the block, from a file in a work folder where possible.

    Later processes do not look at the source again; that it has not changed is checked by the command that joins the parts,
    which makes a listing of its own.
    """
    kept = _kept(path, folder)
    with contextlib.ExitStack() as on_exit:
        with one_at_a_time(kept.with_suffix(".lock"), f"{path}: another part lists the images: waiting for it"):
            if not kept.is_file():
                images = on_exit.enter_context(listed(path))
                if _lasts(images, path):
                    save_listing(kept, images)
            else:
                images = load_listing(kept)
                if _has_fits(images):
                    require_astropy()
                    on_exit.enter_context(quiet())
        yield images


def _has_fits(images: Listing) -> bool:
    """The names of all images are searched first: that takes a hundredth of the time."""
    names = images.names.lower()
    return any(suffix.encode() in names for suffix in FITS_SUFFIXES) and any(map(is_fits, map(images.path, range(len(images)))))

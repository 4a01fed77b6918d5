"""A user's images and table of votes, in folders and zips. Other code imports only this module, not the files beside it."""

from preprocess.sources.find import (
    IMAGE_SUFFIXES,
    SOLUTIONS_NAMES,
    Source,
    VotesTable,
    find_images,
    find_source,
    refuse_several,
    solutions_table,
)
from preprocess.sources.listing import PLAIN, ImageReader, Listing

__all__ = [
    "IMAGE_SUFFIXES",
    "PLAIN",
    "SOLUTIONS_NAMES",
    "ImageReader",
    "Listing",
    "Source",
    "VotesTable",
    "find_images",
    "find_source",
    "refuse_several",
    "solutions_table",
]

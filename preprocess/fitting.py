"""Which decision tree a table follows, and which columns hold its votes and ids: by the names of the columns alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfrecords.builtin import builtin_names, builtin_tree, is_kaggle
from tfrecords.dataset import Dataset
from tfrecords.errors import SourceError
from tfrecords.tree import Layout, Tree

# Usual names of the column that identifies a galaxy, if the tree's own is missing; the last ones hold names of files.
PATH_COLUMNS = ("filename", "file", "path", "file_loc", "image_path", "image")
ID_COLUMNS = (
    "GalaxyID", "id_str", "iauname", "dr7objid", "objid", "asset_id", "galaxy_id", "name", "id", *PATH_COLUMNS,
)  # fmt: skip
_AN_ID = f"an id ({', '.join(ID_COLUMNS)}; or name its column with --id_column)"
_SHOWN = 4


@dataclass(frozen=True)
class Wanted:
    """What was asked for about a table of votes: its `tree` (None: find it), the name of its `votes`, and columns of its ids.

    id_column: holds the ids; path_column: the paths of the images; empty to find them.
    """

    tree: Tree | None = None
    votes: str = ""
    id_column: str = ""
    path_column: str = ""

    @property
    def identity(self) -> str:
        """The named column by which rows and images are joined: that of the paths before that of the ids; empty to find one."""
        return self.path_column or self.id_column


ANYTHING = Wanted()


def wanted_of(dataset: Dataset) -> Wanted:
    """What the table of a dataset's source must be, to be read as it was."""
    votes, id_column, path_column = (dataset.settings.get(name, "") for name in ("votes", "id_column", "path_column"))
    # Without votes the manifest states our default tree, which asks for none.
    tree = dataset.tree if votes or not is_kaggle(dataset.tree) else None
    return Wanted(tree, votes, id_column, path_column)


@dataclass(frozen=True)
class Fit:
    """How a table fits a tree: its layout, its id column, the columns that it lacks. columns: all that are needed."""

    tree: Tree
    layout: Layout
    id: str
    columns: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def share(self) -> float:
        """The fraction of the columns that is missing."""
        return len(self.missing) / (len(self.columns) + 1)

    @property
    def lacks(self) -> str:
        """What is missing, in words."""
        more = f" and {len(self.missing) - _SHOWN} more" if len(self.missing) > _SHOWN else ""
        return f"lacks {', '.join(self.missing[:_SHOWN])}{more}"


class Header:
    """The names of a table's columns, to be found as they are written or, if only one is alike, in other case."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._exact = {*names}
        self._alike: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            self._alike.setdefault(name.casefold(), []).append(name)

    def get(self, name: str) -> str | None:
        """The name of this column as it is written; None if there is none, or several in other case."""
        if name in self._exact:
            return name
        alike = self._alike.get(name.casefold(), [])
        return alike[0] if len(alike) == 1 else None

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def written(self, name: str) -> str:
        """The name of a column that is there as it is written."""
        there = self.get(name)
        assert there is not None
        return there

    def refuse_twice(self, path: str, columns: Iterable[str]) -> None:
        """Raise SourceError if one of these columns comes more than once, in the same or in other case."""
        for column in columns:
            alike = self._alike.get(column.casefold(), [])
            if self.names.count(column) > 1:
                raise SourceError(f"{path}: has the column {column} more than once: remove all but one")
            if len(alike) > 1:
                raise SourceError(f"{path}: has both a column {alike[0]} and a column {alike[1]}: remove one")


def _id_column(tree: Tree, header: Header, wanted: Wanted) -> str:
    """The column that identifies a galaxy: the one asked for, else the tree's own, else the first of the usual names."""
    if wanted.identity:
        return wanted.identity if wanted.identity in header else ""
    return next((name for name in (tree.id, *ID_COLUMNS) if name and name in header), "")


def _fit(tree: Tree, layout: Layout, header: Header, wanted: Wanted, with_id: bool) -> Fit:
    columns = tuple(f"{column}{layout.suffix}" for column in tree.columns if column not in tree.rest)
    if tree.rest and layout.total:
        columns += tuple(f"{question.key}{layout.total}" for question in tree.questions)
    identity = _id_column(tree, header, wanted) if with_id else ""
    missing = () if identity or not with_id else (wanted.identity or tree.id or _AN_ID,)
    return Fit(tree, layout, identity, columns, (*missing, *(column for column in columns if column not in header)))


def fits(names: Sequence[str], wanted: Wanted = ANYTHING, with_id: bool = True) -> list[Fit]:
    """Every way in which a table with these columns could be read, the best first. with_id: whether it needs a column of ids.

    Raises SourceError if no tree has the votes that were asked for.
    """
    header = Header(names)
    trees = [builtin_tree(name) for name in builtin_names()] if wanted.tree is None else [wanted.tree]
    several = [
        _fit(one, way, header, wanted, with_id) for one in trees for way in one.layouts if wanted.votes in ("", way.name)
    ]
    if not several:
        layouts = sorted({way.name for one in trees for way in one.layouts})
        who = f"tree {wanted.tree.name} has" if wanted.tree else "our trees have"
        raise SourceError(f"--votes {wanted.votes}: {who} no such votes: choose from {', '.join(layouts)}")
    return sorted(several, key=lambda fit: fit.share)


def choose_fit(path: str, names: Sequence[str], wanted: Wanted = ANYTHING, with_id: bool = True) -> Fit:
    """The tree and the layout of a table. Raises SourceError, naming what the nearest tree misses, if none fits.

    with_id: whether it needs a column of ids.
    """
    candidates = fits(names, wanted, with_id)
    whole = [fit for fit in candidates if not fit.missing]
    if whole:
        # A table with a tree's own id is that tree's, even if another's columns are there too.
        best = [fit for fit in whole if fit.id == fit.tree.id] or whole
        several = {fit.tree.name for fit in best}
        if len(several) > 1:
            raise SourceError(f"{path}: fits more than one tree ({', '.join(sorted(several))}): choose one with --tree")
        return best[0]
    near = candidates[0]
    columns = f"column {near.columns[0]}"
    if len(near.columns) > 1:
        columns = f"{len(near.columns)} columns {near.columns[0]} to {near.columns[-1]}"
    needed = f"it must have {wanted.identity or near.tree.id or 'an id'} and the {columns}"
    if wanted.tree is None:
        needed += f" of tree {near.tree.name}, the nearest; for a survey of your own give --tree FILE"
    raise SourceError(f"{path}: {near.lacks}: {needed}")

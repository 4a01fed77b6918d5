"""The decision trees that come with this package, in `trees/`, and those of users, by name or path."""

import difflib
from functools import cache
from pathlib import Path

from tfrecords.errors import TreeError
from tfrecords.files import local_path
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree

FOLDER = Path(__file__).with_name("trees")
SUFFIX = ".toml"
KAGGLE = "kaggle"
_MAX_BYTES = 1_000_000


def read_tree(path: Path) -> Tree:
    """The tree in a file. Raises TreeError if there is none."""
    local_path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise TreeError(f"{path}: {what}: give --tree the TOML file of a tree, or one of {', '.join(builtin_names())}")
    if path.stat().st_size > _MAX_BYTES:
        raise TreeError(f"{path}: larger than any tree ({path.stat().st_size:,} bytes): give --tree a TOML file with questions")
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise TreeError(f"{path}: not a text in UTF-8: give --tree a TOML file with questions") from error
    return parse_tree(text, str(path), path.stem)


@cache
def builtin_names() -> tuple[str, ...]:
    """The names of our trees: kaggle, then the others in alphabetical order."""
    names = sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))
    return (KAGGLE, *(name for name in names if name != KAGGLE))


@cache
def builtin_tree(name: str = KAGGLE) -> Tree:
    """One of our trees."""
    return read_tree(FOLDER / f"{name}{SUFFIX}")


def is_kaggle(tree: Tree) -> bool:
    """Whether a tree has the questions and columns of Kaggle's, whatever its name."""
    return tree.structure == builtin_tree(KAGGLE).structure


def find_tree(given: str | Path) -> Tree:
    """Find a decision tree by name, or read it from a file.

    Parameters
    ----------
    given : str or Path
        kaggle, gz2, decals5 or another name that `preprocess trees` lists, or the path of a TOML file.

    Returns
    -------
    Tree
        Its questions and columns, for `build_dataset`.

    Raises
    ------
    TreeError
        If there is no such tree, or the file does not hold one, or holds one with the name of another of ours.

    Examples
    --------
    >>> from tfrecords import find_tree
    >>> tree = find_tree("decals5")
    >>> len(tree.columns), tree.columns[0]
    (34, 'smooth-or-featured_smooth')
    """
    if str(given) in builtin_names():
        return builtin_tree(str(given))
    path = Path(given)
    if not path.exists() and path.suffix != SUFFIX and len(path.parts) == 1:
        near = difflib.get_close_matches(str(given), builtin_names(), 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(builtin_names())}, or give a TOML file"
        raise TreeError(f"--tree {given}: no such tree: {hint}")
    tree = read_tree(path)
    # Datasets, runs and pages name their tree: a name must not stand for two.
    if tree.name in builtin_names() and tree.structure != builtin_tree(tree.name).structure:
        raise TreeError(f'{path}: its name is that of another tree: give it a name of its own, name = "..."')
    return tree

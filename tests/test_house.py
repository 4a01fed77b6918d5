"""The rules of the house, checked against the imports and names in the code. BUILD.md lists them in the same words."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from trainer.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("tfrecords", "preprocess", "trainer")
WINGS = ("backends", "input", "network", "images", "analysis")
RULES = (
    "`tfrecords` imports neither `preprocess` nor `trainer`.",
    "`preprocess` imports nothing from `trainer`, and never TensorFlow, directly or indirectly.",
    "From `preprocess`, `trainer` imports only `preprocess.sources` and `preprocess.surveys`. Code outside the folder "
    "`sources`, in `preprocess` too, imports only its `__init__`.",
    "The subfolders of `trainer` import none of its commands; `trainer.backends` imports nothing else from `trainer`.",
    "There are no circular imports, neither between modules nor between folders.",
    "Importing `trainer.train` does not load FITS code, archive code or `predict`.",
    "Code that differs between TensorFlow and JAX is in `trainer.backends`; no other module checks which backend is in use.",
    "A private name of JAX is used in one function only. Its docstring states what breaks if JAX moves the name, and a test "
    "detects that.",
    "The name of a class or public function has one meaning; no value is called `found`, `made` or `of`.",
    "Each helper is defined in one place.",
)


@dataclass(frozen=True)
class Import:
    """Module `importer` imports `module`, or `name` from it."""

    importer: str
    module: str
    name: str

    @property
    def whole(self) -> str:
        """The imported module; for `from package import module`, `package.module`."""
        longer = f"{self.module}.{self.name}"
        return longer if longer in rooms() else self.module


@cache
def rooms() -> dict[str, ast.Module]:
    """Every module of the three packages, by its dotted name."""
    trees = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text("utf-8"))
    assert len(trees) > 70
    return trees


def _imports(room: str) -> Iterator[Import]:
    for node in ast.walk(rooms()[room]):
        if isinstance(node, ast.Import):
            yield from (Import(room, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room}: relative import"
            yield from (Import(room, node.module or "", alias.name) for alias in node.names)


@cache
def imports() -> tuple[Import, ...]:
    return tuple(each for room in rooms() for each in _imports(room))


def _is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _offences(importers: tuple[str, ...], *forbidden: str) -> list[str]:
    """Imports of the `forbidden` packages by the `importers`, as sentences."""
    return [
        f"{each.importer} imports {each.whole}"
        for each in imports()
        if _is_in(each.importer, *importers) and _is_in(each.whole, *forbidden)
    ]


def test_build_md_states_exactly_these_rules() -> None:
    text = (ROOT / "BUILD.md").read_text("utf-8")
    start = text.index("Rules of the house")
    listed = re.findall(r"^- (.+(?:\n  .+)*)", text[start : text.index("\n\n", text.index("\n- ", start))], re.MULTILINE)
    assert [" ".join(rule.split()) for rule in listed] == list(RULES)


def test_tfrecords_imports_neither_of_the_programs() -> None:
    assert _offences(("tfrecords",), "preprocess", "trainer") == []


def test_preprocess_imports_nothing_of_trainer_and_never_tensorflow() -> None:
    reached = {room for room in rooms() if _is_in(room, "preprocess")}
    while more := {each.whole for each in imports() if each.importer in reached and each.whole in rooms()} - reached:
        reached |= more
    assert {room.split(".")[0] for room in reached} == {"preprocess", "tfrecords"}
    heavy = ("tensorflow", "keras", "tensorflow_datasets", "jax")
    assert _offences(tuple(reached - {"preprocess", "tfrecords"}), *heavy) == []


def test_the_sources_have_one_door() -> None:
    assert [
        f"{each.importer} imports {each.whole}"
        for each in imports()
        if _is_in(each.whole, "preprocess.sources") and each.whole != "preprocess.sources"
        and not _is_in(each.importer, "preprocess.sources")
    ] == []  # fmt: skip
    assert [each.importer for each in imports() if (each.module, each.name) == ("preprocess", "sources")] == []  # as a whole
    through_the_door = {"preprocess.sources", "preprocess.surveys"}
    assert {each.whole for each in imports() if _is_in(each.importer, "trainer") and _is_in(each.whole, "preprocess")} == (
        through_the_door
    )


def test_wings_import_no_command_and_backends_nothing_else_of_trainer() -> None:
    commands = tuple(f"trainer.{command}" for command in (*COMMANDS, "cli", "cli_galaxies"))
    assert {*commands} <= rooms().keys()
    wings = tuple(f"trainer.{wing}" for wing in WINGS)
    assert {room.split(".")[1] for room in rooms() if room.count(".") > 1 and room.startswith("trainer.")} == {*WINGS}
    assert _offences(wings, *commands) == []
    others = [
        f"{each.importer} imports {each.whole}"
        for each in imports()
        if _is_in(each.importer, "trainer.backends")
        and _is_in(each.whole, "trainer")
        and not _is_in(each.whole, "trainer.backends")
    ]
    assert others == []


def _circle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of a circular import, and those that import them; empty if there is none."""
    left = {room: set(targets) for room, targets in edges.items()}
    while ends := [room for room, targets in left.items() if not targets & left.keys()]:
        for room in ends:
            del left[room]
    return sorted(left)


def test_a_circle_would_be_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def _wing(room: str) -> str:
    """The subfolder of a module, or the module itself if it is at the root of its package."""
    parts = room.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else room


def test_no_room_imports_itself_in_a_circle_nor_does_a_wing() -> None:
    of_rooms: dict[str, set[str]] = {room: set() for room in rooms()}
    of_wings: dict[str, set[str]] = {_wing(room): set() for room in rooms()}
    for each in imports():
        if each.whole in rooms() and each.whole != each.importer and each.importer.count("."):
            of_rooms[each.importer].add(each.whole)
            if _wing(each.importer) != _wing(each.whole):
                of_wings[_wing(each.importer)].add(_wing(each.whole))
    assert sum(map(len, of_rooms.values())) > 200
    assert _circle(of_rooms) == [] and _circle(of_wings) == []


def test_importing_training_loads_neither_fits_nor_archives_nor_predict() -> None:
    script = "import sys, trainer.train; print(*sorted(name for name in sys.modules if name.split('.')[0] in sys.argv))"
    command = [sys.executable, "-c", script, *PACKAGES, "tensorflow", "keras", "astropy", "pandas", "matplotlib"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert "trainer.train" in loaded and "trainer.config" in loaded
    heavy = (
        "tfrecords.fits.planes",
        "tfrecords.fits.colour",
        "trainer.images.cutouts",
        "preprocess",
        "trainer.predict",
        "trainer.explore",
        "trainer.export",
    )
    assert [name for name in loaded if _is_in(name, *heavy, "tensorflow", "keras", "astropy", "pandas", "matplotlib")] == []


def test_no_room_outside_backends_asks_which_backend_it_runs_on() -> None:
    asked = [
        f"{room}, line {node.lineno}"
        for room, tree in rooms().items()
        if not _is_in(room, "trainer.backends")
        for node in ast.walk(tree)
        if isinstance(node, (ast.Compare, ast.MatchValue))
        and any(isinstance(part, ast.Constant) and part.value in ("jax", "tensorflow") for part in ast.walk(node))
    ]
    assert asked == []
    others = tuple(room for room in rooms() if room.count(".") and not _is_in(room, "trainer.backends"))
    assert _offences(others, "trainer.backends.on_tensorflow", "trainer.backends.on_jax") == []
    questions = ("keras.backend.backend", "keras.config.backend", "tf.distribute", "os.environ.get('KERAS_BACKEND')")
    assert [
        f"{room}, line {node.lineno}: {ast.unparse(node)}"
        for room in others
        for node in ast.walk(rooms()[room])
        if isinstance(node, (ast.Attribute, ast.Call)) and ast.unparse(node) in questions
    ] == []
    assert {each.importer for each in imports() if _is_in(each.module, "jax")} <= {
        room for room in rooms() if _is_in(room, "trainer.backends")
    }


def test_private_names_of_jax_stand_in_one_function_that_says_what_breaks() -> None:
    private = [each for each in imports() if _is_in(each.module, "jax") and "._" in f"{each.module}.{each.name}"]
    assert [(each.importer, each.name) for each in private] == [("trainer.backends.hosts", "distributed")]
    chains = [node for tree in rooms().values() for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert [ast.unparse(node) for node in chains if re.match(r"jax(\.\w+)*\._\w", ast.unparse(node))] == []
    functions = {node.name: node for node in ast.walk(rooms()["trainer.backends.hosts"]) if isinstance(node, ast.FunctionDef)}
    assert "Should it move" in (ast.get_docstring(functions["_jax_state"]) or "")


def test_the_private_names_of_jax_are_there() -> None:
    from jax._src.distributed import clusters, global_state

    assert hasattr(global_state, "client") and hasattr(clusters.ClusterEnv, "auto_detect_unset_distributed_params")
    from jax._src.lib import _jax

    client = _jax.DistributedRuntimeClient
    assert {"key_value_set", "blocking_key_value_get"} <= {*dir(client)}


VAGUE = ("found", "made", "of")
# Names that mean the same everywhere: the entry point of a program, and the hardware search of each backend.
SAME = {"main", "find_hardware"}


def test_a_name_stands_for_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for room, tree in rooms().items():
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(room)
    assert {name: where for name, where in homes.items() if len(where) > 1 and name not in SAME} == {}


def test_values_have_names_that_say_what_they_are() -> None:
    """`found`, `made` and `of` fit anything. Two modules are exempt."""
    vague = [
        f"{room}, line {node.lineno}"
        for room, tree in rooms().items()
        if room not in ("preprocess.sources.archives", "trainer.analysis.style")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in VAGUE)
        or (isinstance(node, ast.arg) and node.arg in VAGUE)
    ]
    assert vague == []


@pytest.mark.parametrize(
    ("pattern", "home"),
    [
        (r"build the dataset again with --overwrite", "tfrecords.errors"),
        (r"' '\.join\(str\(\w+\)\.split\(\)\)", "tfrecords.errors"),
        (r"min\(galaxies, limit\)", "tfrecords.dataset"),
    ],
)
def test_a_helper_has_one_home(pattern: str, home: str) -> None:
    assert [room for room, tree in rooms().items() for _ in re.findall(pattern, ast.unparse(tree))] == [home]

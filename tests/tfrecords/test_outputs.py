"""Only files that a marker lists are ever overwritten or removed, and only if unchanged since we wrote them."""

import json
from pathlib import Path

import pytest

from tfrecords.errors import ConfigError, RunError
from tfrecords.outputs import Output

BUSY = "another process is writing here: wait"


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _mine(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in _tree(folder).items() if not name.startswith(".galaxy-zoo")}


def test_files_are_written_listed_and_removed_with_the_folders_that_they_leave_empty(tmp_path: Path) -> None:
    output = Output(tmp_path / "deep" / "page", "page")
    output.write({"figures/tree.svg": b"<svg/>", "index.html": b"<html/>"})
    assert _mine(output.folder) == {"figures/tree.svg": b"<svg/>", "index.html": b"<html/>"}
    again = Output(output.folder, "page")
    assert again.files == output.files and again.is_intact("index.html") and again.is_intact("figures/tree.svg")
    again.remove(["figures/tree.svg"])
    assert not (output.folder / "figures").exists()
    assert Output(output.folder, "page").files.keys() == {"index.html"}


@pytest.mark.parametrize("name", ["index.html", "figures/tree.svg"])
def test_a_file_of_somebody_else_is_refused_by_name_and_left_alone(tmp_path: Path, name: str) -> None:
    output = Output(tmp_path, "page")
    output.write({"data/votes.csv": b"ours"})
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    before = _tree(tmp_path)
    with pytest.raises(ConfigError, match=rf"{name}: was not written by this program: move it elsewhere"):
        output.write({"figures/bar.svg": b"", name: b"ours"})
    assert _tree(tmp_path) == before


def test_a_file_that_was_changed_is_neither_overwritten_nor_removed(tmp_path: Path) -> None:
    output = Output(tmp_path, "run")
    output.write({"README.md": b"card", "history.csv": b"1"})
    (tmp_path / "README.md").write_bytes(b"card, with my notes")
    for change in (lambda: output.write({"README.md": b"card"}), lambda: output.remove(["history.csv", "README.md"])):
        with pytest.raises(ConfigError, match=r"README\.md: has changed since it was written: move it elsewhere"):
            change()
    assert _mine(tmp_path) == {"README.md": b"card, with my notes", "history.csv": b"1"}
    with pytest.raises(RunError, match=r"README\.md: has changed since it was written: do this"):
        output.check("README.md", "do this")
    output.check("history.csv", "do this")


def test_a_file_of_somebody_else_in_a_folder_of_ours_keeps_that_folder(tmp_path: Path) -> None:
    output = Output(tmp_path, "page")
    output.write({"figures/tree.svg": b""})
    (tmp_path / "figures" / "thesis.svg").write_bytes(b"mine")
    output.remove(["figures/tree.svg"])
    assert _mine(tmp_path) == {"figures/thesis.svg": b"mine"}


def test_a_folder_without_marker_must_be_empty(tmp_path: Path) -> None:
    Output(tmp_path, "page").refuse_others()
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ConfigError, match=r"holds other files \(holiday\.jpg\) and is not a page of explore: choose an --out"):
        Output(tmp_path, "page").refuse_others()
    with pytest.raises(ConfigError, match="is a file: choose another --out"):
        Output(tmp_path / "holiday.jpg", "page").refuse_others()


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", ".ipynb_checkpoints/a.ipynb", "lost+found/x", "._model.keras", ".nfs01"]
)
def test_what_desktops_notebooks_and_file_systems_leave_in_a_folder_is_no_reason_to_refuse_it_and_stays(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    output = Output(tmp_path, "page")
    output.refuse_others()
    output.write({"index.html": b"page"})
    assert (tmp_path / name).is_file() and Output(tmp_path, "page").exists


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    Output(tmp_path, "run").write({"config.json": b"{}"})
    with pytest.raises(ConfigError, match="holds a training run: choose another folder"):
        Output(tmp_path, "page")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"kind": "run"}', '{"kind": "run", "files": 3}', '{"kind": "run", "files": {"../thesis.tex": ""}}',
     '{"kind": "run", "files": {"/etc/passwd": ""}}', '{"kind": "run", "files": {"x": 1}}'],
)  # fmt: skip
def test_a_damaged_marker_lists_nothing_and_is_an_error(tmp_path: Path, content: str) -> None:
    Output(tmp_path, "run").write({"config.json": b"{}"})
    (tmp_path / ".galaxy-zoo" / "marker.json").write_text(content)
    with pytest.raises(ConfigError, match=r"marker\.json: damaged"):
        Output(tmp_path, "run")


@pytest.mark.parametrize("name", ["report", "report/figures", ".galaxy-zoo"])
def test_a_folder_that_is_a_link_is_refused_and_nothing_behind_it_is_touched(tmp_path: Path, name: str) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    (elsewhere / "tree.svg").write_bytes(b"mine")
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=f"{name}: is a link to another folder: remove the link"):
        Output(folder, "run").write({"report/figures/tree.svg": b"ours"})
    assert _tree(elsewhere) == {"tree.svg": b"mine"}


def test_a_listed_folder_that_became_a_link_is_not_followed_when_files_are_removed(tmp_path: Path) -> None:
    output = Output(tmp_path / "run", "run")
    output.write({"report/figures/tree.svg": b"ours"})
    (tmp_path / "run" / "report" / "figures").rename(tmp_path / "moved")
    (tmp_path / "run" / "report" / "figures").symlink_to(tmp_path / "moved")
    with pytest.raises(ConfigError, match="is a link to another folder"):
        output.remove(["report/figures/tree.svg"])
    assert _tree(tmp_path / "moved") == {"tree.svg": b"ours"}


def test_every_file_is_listed_before_it_is_there(tmp_path: Path) -> None:
    """So a process that is killed at any moment leaves no file of ours unlisted."""
    output = Output(tmp_path, "page")
    output.claim("index.html")
    assert json.loads((tmp_path / ".galaxy-zoo" / "marker.json").read_text())["files"] == {"index.html": ""}
    (tmp_path / "index.html").write_bytes(b"half")  # and killed here
    Output(tmp_path, "page").write({"index.html": b"whole"})
    assert _mine(tmp_path) == {"index.html": b"whole"}


def test_who_only_looks_leaves_no_trace(tmp_path: Path) -> None:
    output = Output(tmp_path / "new" / "run", "run")
    with output.locked(BUSY):
        assert (output.private / "lock").is_file()
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    with Output(tmp_path, "run").locked(BUSY):
        with pytest.raises(ConfigError, match=f"{tmp_path}: {BUSY}"), Output(tmp_path, "run").locked(BUSY):
            pass
        Output(tmp_path, "run").write({"config.json": b"{}"})
    with Output(tmp_path, "run").locked(BUSY):
        pass


def test_unfinished_files_of_a_killed_process_go_and_other_files_in_the_private_folder_stay(tmp_path: Path) -> None:
    output = Output(tmp_path, "run")
    output.write({"config.json": b"{}"})
    (output.private / ".model.0123.partial").mkdir()
    (output.private / ".model.0123.partial" / "model.keras").touch()
    (output.private / ".card.4567.partial").touch()
    (output.private / "features-train").touch()
    with output.locked(BUSY):
        assert {path.name for path in output.private.iterdir()} == {"lock", "marker.json", "features-train"}

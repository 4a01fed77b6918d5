"""What the documents show is what the commands accept, print and measured, and --help leads with what to do."""

import re
import shlex
import textwrap
from argparse import SUPPRESS
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from preprocess import cli as preprocess_cli
from tfrecords.commandline import Command, _parser
from trainer import cli as trainer_cli
from trainer.config import GROUPS, SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
DOCUMENTS = (*PAGES, "BUILD.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "benchmarks/gpu/README.md")
PROGRAMS: dict[str, tuple[dict[str, Command], str]] = {
    "preprocess": (preprocess_cli.COMMANDS, "build"),
    "trainer": (trainer_cli.COMMANDS, "train"),
}
# Lines of shell blocks that this file does not run: by what they begin with, and why.
NOT_RUN = {
    "python3 -m venv ": "installs: .ci/run does it",
    ". .venv/bin/activate": "installs: .ci/run does it",
    "pip install ": "installs: the extras are checked",
    "./run_all.sh": ".ci/run runs both",
    "kaggle competitions download ": "downloads",
    "rsync ": "needs a server",
    "ssh ": "needs a server",
    "cut -d, ": "test_documents_run.py runs it",
    "cd galaxy-zoo-vgg16": "needs a server",
    "tmux ": "needs a terminal",
    "python -c ": "needs a GPU",
    "python predict.py ": "test_export.py runs it",
    "docker ": "needs Docker",
    "sbatch ": "needs Slurm",
}


_WRITTEN = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    language: str
    text: str

    @property
    def files(self) -> dict[str, str]:
        """The files that a shell block writes with `cat`: name -> text."""
        return dict(_WRITTEN.findall(self.text))

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block, without comments, `cat` and its text, and with continued lines joined."""
        joined = re.sub(r"\\\n\s*", " ", _WRITTEN.sub("", self.text))
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def blocks(documents: Iterable[str], language: str) -> list[Block]:
    pattern = re.compile(rf"^( *)```{language}\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    return [
        Block(name, language, textwrap.dedent(block))
        for name in documents
        for _, block in pattern.findall((ROOT / name).read_text("utf-8"))
    ]


COMMAND = re.compile(
    r"(?P<environment>(?:[A-Z_]+=\S+ )*)(?:srun |docker run .* galaxy-zoo-vgg16 )?(?:\.venv/bin/)?"
    r"(?P<words>(?:preprocess|trainer) .*)"
)


def _typed() -> list[str]:
    """The commands of both programs in the shell blocks of the documents, and those that --help gives as examples."""
    lines = [command.example for commands, _ in PROGRAMS.values() for command in commands.values()]
    lines += [line for block in blocks(DOCUMENTS, "sh") for line in block.lines]
    return [match["words"].split(" && ")[0] for line in lines if (match := COMMAND.fullmatch(line))]


def parse(words: list[str]) -> tuple[Command, str, Any]:
    """The command, its name and its arguments, as the program reads them."""
    program, *rest = words
    commands, name = PROGRAMS[program]
    if not rest[0].startswith("-"):
        name, *rest = rest
    return commands[name], name, _parser(program, name, commands, PROGRAMS[program][1]).parse_args(rest)


@pytest.mark.parametrize("line", _typed())
def test_a_command_that_the_documents_show_is_accepted(line: str) -> None:
    parse(shlex.split(line, comments=True))


def test_the_documents_show_every_command() -> None:
    shown = {" ".join(word for word in line.split()[:2] if not word.startswith("-")) for line in _typed()}
    for program, (commands, default) in PROGRAMS.items():
        assert {program if name == default else f"{program} {name}" for name in commands} <= shown


def test_each_line_of_a_shell_block_is_a_command_of_ours_or_known_not_to_run_here() -> None:
    unknown = [
        f"{block.document}: {line}"
        for block in blocks(PAGES, "sh")
        for line in block.lines
        if not COMMAND.fullmatch(line) and not line.startswith(tuple(NOT_RUN))
    ]
    assert unknown == []


def test_the_extras_that_the_documents_and_messages_install_exist() -> None:
    setup = (ROOT / "setup.py").read_text("utf-8")
    extras = set(re.findall(r'^        "([\w-]+)": \[', setup, re.MULTILINE))
    sources = [*(ROOT / name for name in DOCUMENTS), ROOT / "Dockerfile", *ROOT.glob("*/**/*.py")]
    named = {
        extra
        for path in sources
        if path.parts[len(ROOT.parts)] not in (".venv", "build")
        for extra in re.findall(
            r"pip install (?:-e )?'(?:\.|galaxy-zoo-vgg16)\[([\w-]+)\]'|install_extra\(['\"]([\w-]+)['\"]\)|EXTRAS=([\w-]+)",
            path.read_text("utf-8"),
        )
        for extra in extra
        if extra
    }
    assert {"gpu", "dask", "fits", "export", "jax", "jax-gpu", "test"} <= named <= extras


def _help(program: str, name: str) -> str:
    commands, default = PROGRAMS[program]
    text: str = _parser(program, name, commands, default).format_help()
    return text


@pytest.mark.parametrize(("program", "name"), [(program, name) for program in PROGRAMS for name in PROGRAMS[program][0]])
def test_help_leads_with_what_the_command_does_and_an_example(program: str, name: str) -> None:
    commands, default = PROGRAMS[program]
    text = _help(program, name)
    places = [text.index("usage: "), text.index(commands[name].summary)]
    if name == default:
        places += [text.index(f"  {program} {other} ") for other in commands if other != default]
    places += [text.index(f"example:\n  {commands[name].example}\n"), text.index("\ndata:\n")]
    assert places == sorted(places)


def test_the_settings_of_a_run_stand_in_their_groups() -> None:
    text = _help("trainer", "train")
    assert [title for title in re.findall(r"^([a-z ]+):$", text, re.MULTILINE) if title in GROUPS] == list(GROUPS)
    for title, block in zip(GROUPS, re.split(rf"^(?:{'|'.join(GROUPS)}):$", text, flags=re.MULTILINE)[1:], strict=True):
        flags = set(re.findall(r"^  --(\w+)", block, re.MULTILINE)) - {"overwrite", "recipe", "submission"}
        assert flags == {name for name, setting in SETTINGS.items() if setting.group == title}


@pytest.mark.parametrize(("program", "name"), [(program, name) for program in PROGRAMS for name in PROGRAMS[program][0]])
def test_each_flag_is_described_with_its_default_or_is_required_or_a_switch(program: str, name: str) -> None:
    commands, default = PROGRAMS[program]
    for action in _parser(program, name, commands, default)._actions:
        if action.dest in ("help", "helpfull", "version") or action.help == SUPPRESS:  # argparse's and absl's own
            continue
        text = action.help or ""
        assert len(text) > 15 and text[0] == text[0].lower() and not text.endswith("."), action.dest
        assert ("(required)" in text) == action.required, action.dest
        optional = action.nargs != 0 and not action.required
        alternatives = {"tfrecords", "images", "json", "src", "submission", "where"}  # one of two, or something more
        assert ("(default: " in text) == (optional and action.dest not in alternatives), action.dest


# Figures that do not come from benchmarks/, by page, and where they do come from.
ELSEWHERE = {
    ("README.md", "3.11"): "setup.py, python_requires",
    ("README.md", "3.13"): "setup.py, classifiers",
    ("README.md", "71"): "the demo, as the output shown there",
    ("README.md", "61,578"): "rows of Kaggle's training_solutions_rev1.csv",
    ("README.md", "0.0970"): "the article",
    ("README.md", "600"): "preprocess demo --galaxies",
    ("docs/images.md", "79,975"): "images of Kaggle's images_test_rev1",
    ("docs/images.md", "0.5"): "preprocess --crop_fraction",
    ("docs/results.md", "1,024"): "trainer/network/model.py, units of fc2",
    ("docs/gpu-server.md", "140,000"): "Kaggle's images, rounded",
    ("docs/recipes.md", "0.0736"): "Ng 2024",
}
_NUMBER = re.compile(r"(?<![\w.:/])\d[\d,]*(?:\.\d+)?(?![\w]|\.\d|,\d)")
_MEASURED = re.compile(r"\s?(?:%|images/s|times\b|s\b|min|MB|GB|kB|bytes|galaxies)")


def _prose(document: str) -> str:
    """A document without code, addresses and comments, and without the lines of the credits."""
    text = (ROOT / document).read_text("utf-8").split("\n## Credits\n")[0]
    for pattern in (r"```.*?```", r"<!-- settings.*?<!-- end of settings -->", r"`[^`]*`", r"\]\([^)]*\)", r"arXiv:\S+"):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return text


def _figures(text: str) -> set[str]:
    """Numbers that were measured: with decimals, thousands, or a unit behind them."""
    return {
        match[0].rstrip(",")
        for match in _NUMBER.finditer(text)
        if "." in match[0] or "," in match[0].rstrip(",") or _MEASURED.match(text, match.end())
    }


def test_figures_are_recognised() -> None:
    text = "RMSE 0.1003 after 10 epochs, -8.8 % (-0.0127 to 1); 3,205 images/s, 1.47.0 and 5 kB, 16 views of 424 x 424"
    assert _figures(text) == {"0.1003", "8.8", "0.0127", "3,205", "5"}


@pytest.mark.parametrize("document", PAGES)
def test_each_figure_that_a_page_quotes_is_in_the_benchmarks(document: str) -> None:
    measured = set(_NUMBER.findall((ROOT / "benchmarks" / "README.md").read_text("utf-8")))
    elsewhere = {figure for page, figure in ELSEWHERE if page == document}
    assert sorted(_figures(_prose(document)) - {number.rstrip(",") for number in measured} - elsewhere) == []


def test_the_output_that_readme_shows_is_the_demo_of_the_benchmarks() -> None:
    [output] = blocks(["README.md"], "text")
    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    [row] = [line for line in text.splitlines() if line.startswith("| 600 synthetic ones")]
    shown = _figures("\n".join(line for line in output.text.splitlines() if "RMSE" in line or "95 %" in line)) - {"95", "71"}
    ratio = next(figure for figure in shown if figure.startswith("0.7"))
    assert shown - {ratio} <= _figures(row) and f"{float(ratio):.2f}" in _figures(row)
    assert len(shown) == 5


def test_each_flag_that_a_page_names_exists() -> None:
    exist = {
        option
        for program, (commands, default) in PROGRAMS.items()
        for name in commands
        for action in _parser(program, name, commands, default)._actions
        for option in action.option_strings
    }
    # Of rsync, Docker, TensorBoard and Slurm.
    others = {"--exclude", "--build-arg", "--gpus", "--user", "--logdir", "--array", "--cpus-per-task", "--wrap", "--wait"}
    for page in PAGES:
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", (ROOT / page).read_text("utf-8"))) - others <= exist


# Rows of tables in the pages, by the label before their figures: the label of the rows in benchmarks/README.md that hold them.
QUOTED = {
    "this project (lossless crops, every value checked)": "preprocess --encoding jpeg, 2 workers",
    "img2dataset 1.47.0 (resized": "img2dataset 1.47.0, 2 processes",
    "TensorFlow's TFRecord tutorial": "tf.train.Example loop of TensorFlow's tutorial",
    "TFDS SequentialWriter": "TFDS SequentialWriter",
    "the article's loop (writes nothing)": "the article's loop (writes nothing)",
    "--recipe best": "best",
    "--recipe article --batch_size 32": "article, batch 32",
    "--recipe article": "article, batch 1",
    "a plain Keras loop": "plain Keras loop",
    "column means of train": "On the 316 galaxies of test",
    "this project, decoded galaxies in memory": "jpeg, decoded galaxies in memory",
    "this project, --encoding raw": "--encoding raw",
    "this project, --encoding jpeg": "--encoding jpeg",
    "tf.data, decode_and_crop_jpeg": "tf.data, decode_and_crop_jpeg",
    "keras.utils.image_dataset_from_directory": "keras.utils.image_dataset_from_directory",
    "PyTorch DataLoader, Pillow": "PyTorch DataLoader, Pillow",
    "WebDataset, Pillow": "WebDataset, Pillow",
    "batches of 32": "batches of 32",
    "batches of 128": "batches of 128",
    "batches of 256": "batches of 256",
}


def _plain(text: str) -> str:
    return re.sub(r"[*`]", "", text).strip()


def _rows(document: str) -> Iterator[tuple[str, set[str]]]:
    """Label and figures of each row of the tables; a row may hold two, side by side."""
    for line in re.sub(
        r"<!-- settings.*end of settings -->", "", (ROOT / document).read_text("utf-8"), flags=re.DOTALL
    ).splitlines():
        if line.startswith("|"):
            label, figures = "", set[str]()
            for cell in map(_plain, line.strip("|").split("|")):
                if re.match(r"[-+(]?\d|$", cell):
                    figures |= _figures(cell)
                else:
                    if figures:
                        yield label, figures
                    label, figures = cell, set()
            if figures:
                yield label, figures


@pytest.mark.parametrize("document", PAGES)
def test_a_row_of_figures_is_that_of_the_same_thing_in_the_benchmarks(document: str) -> None:
    text = _plain((ROOT / "benchmarks" / "README.md").read_text("utf-8"))
    for label, figures in _rows(document):
        [quoted] = [QUOTED[key] for key in QUOTED if re.match(rf"{re.escape(key)}(?! --)", label)]
        lines = [line for line in text.splitlines() if re.match(rf"(\| )?{re.escape(quoted)}", line)]
        measured = set().union(*({number.rstrip(",") for number in _NUMBER.findall(line)} for line in lines))
        assert figures <= measured, (label, sorted(figures - measured))


def test_rows_are_read_from_every_table() -> None:
    assert len({label for document in PAGES for label, _ in _rows(document)}) >= len(QUOTED) - 1


def test_readme_is_short_and_links_every_page() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 130
    assert [page for page in PAGES if page != "README.md" and f"]({page})" not in text] == []


@pytest.mark.parametrize("document", [*DOCUMENTS])
def test_links_within_the_repository_lead_somewhere(document: str) -> None:
    folder = (ROOT / document).parent
    for address in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text("utf-8")):
        if address.startswith("http"):
            continue
        name, _, anchor = address.partition("#")
        target = folder / name if name else ROOT / document
        assert target.exists(), address
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, address


def test_each_test_that_a_promise_names_exists() -> None:
    text = (ROOT / "docs" / "promises.md").read_text("utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for *_, tests, _ in rows:
        files = re.findall(r"`(tests/[\w/]+\.py)`(?:: ((?:`test_\w+`(?:, )?)+))?", tests)
        assert files, tests
        for file, names in files:
            there = (ROOT / file).read_text("utf-8")
            assert all(f"def {name}(" in there for name in re.findall(r"`(test_\w+)`", names)), (file, names)

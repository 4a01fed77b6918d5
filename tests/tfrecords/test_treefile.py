"""The file of a decision tree: what it may hold, and what is refused."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.builtin import builtin_names, builtin_tree, find_tree, is_kaggle, read_tree
from tfrecords.errors import GalaxyZooError, TreeError
from tfrecords.tree import Layout, Tree, drawing
from tfrecords.treefile import parse_tree

RINGS = """\
id = "galaxy"
[[question]]
key = "ring"
answers = { yes = "ring" }
rest = "no"
"""

FULL = """\
name = "rings"
title = "Rings in my survey"
citation = "Author et al. 2026"
url = "https://example.org"
id = "iauname"
tables = ["votes.csv"]
prefix = "t_"
volunteers = 30

[files]
table = "mapping.csv"
id = "objid"
file = "asset_id"

[[votes]]
kind = "counts"
total = "_total"

[[votes]]
name = "debiased"
suffix = "_debiased"
normalise = true
warning = 0.1
error = 0.3

[[question]]
key = "shape"
title = "smooth or featured"
text = "Smooth, or with features?"
answers = { smooth = "t_smooth", featured = "t_featured" }
phrases = ["smooth galaxy", "galaxy with features"]

[[question]]
key = "ring-kind"
after = ["t_featured"]
answers = { bright = "t_bright", faint = "t_faint" }
rest = "none"

[classes]
thresholds = [0.9, 1]
[classes."ringed galaxy"]
plural = "ringed galaxies"
columns = ["t_featured", "t_bright"]
note = "how bright"
describe = ["ring-kind"]

[[reading]]
columns = ["t_featured", "t_smooth"]
text = "see features"

[scores]
"a paper" = 0.1
"""


def _parse(text: str) -> Tree:
    return parse_tree(text, "my.toml", "my")


def _refused(text: str) -> str:
    """The message with which a text is refused: one line that begins with the file."""
    with pytest.raises(TreeError) as caught:
        _parse(text)
    message = str(caught.value)
    assert message.startswith("my.toml: ") and message.isprintable() and len(message) < 400
    return message


# What a file may hold


def test_a_file_of_five_lines_is_a_tree() -> None:
    tree = _parse(RINGS)
    assert len(RINGS.splitlines()) == 5
    assert (tree.name, tree.title, tree.id, tree.citation) == ("my", "my", "galaxy", "")
    assert (tree.columns, tree.rest) == (("ring", "ring_no"), {"ring_no"})
    assert tree.questions[0].answers == tree.questions[0].phrases == ("yes", "no")
    assert (tree.questions[0].title, tree.questions[0].parents) == ("ring", ())
    assert tree.layouts == (Layout("fractions", "fractions"),) and tree.classes == tree.scores == tree.readings == ()
    assert drawing(tree).splitlines()[-2:] == ["├─ yes  ring", "└─ no   ring_no (the rest)"]


def test_a_file_with_everything_that_the_format_describes_is_read_as_written() -> None:
    tree = _parse(FULL)
    assert (tree.name, tree.title, tree.citation) == ("rings", "Rings in my survey", "Author et al. 2026")
    assert (tree.url, tree.id, tree.tables, tree.prefix) == ("https://example.org", "iauname", ("votes.csv",), "t_")
    assert tree.files is not None and tree.volunteers == 30
    assert (tree.files.table, tree.files.id, tree.files.file) == ("mapping.csv", "objid", "asset_id")
    assert tree.layouts == (
        Layout("counts", "counts", total="_total"),
        Layout("debiased", "fractions", "_debiased", normalise=True, warning=0.1, error=0.3),
    )
    shape, ring = tree.questions
    assert (shape.title, shape.words, shape.phrases[0]) == ("smooth or featured", "Smooth, or with features?", "smooth galaxy")
    assert (ring.title, ring.answers, ring.parents) == ("ring kind", ("bright", "faint", "none"), (1,))
    assert tree.columns == ("t_smooth", "t_featured", "t_bright", "t_faint", "ring-kind_none")
    assert tree.thresholds == (0.9, 1.0)
    (member,) = tree.classes
    assert (member.name, member.plural, member.note) == ("ringed galaxy", "ringed galaxies", "how bright")
    assert (member.columns, member.describe) == ((1, 2), (1,))
    assert (tree.readings[0].columns, tree.readings[0].words) == ((1, 0), "see features")
    assert tree.scores == (("a paper", 0.1),) and tree.text == FULL


def test_the_text_of_a_tree_is_that_tree_again() -> None:
    for name in builtin_names():
        tree = builtin_tree(name)
        assert parse_tree(tree.text, "tree.toml", "other") == tree


def test_a_question_may_be_asked_after_answers_of_different_questions_if_nobody_gives_both() -> None:
    text = """
[[question]]
key = "a"
answers = { smooth = "smooth", disk = "disk", artifact = "artifact" }
[[question]]
key = "merging"
after = ["smooth", "disk"]
answers = { yes = "merging", no = "single" }
[[question]]
key = "why"
after = ["merging", "artifact"]
answers = { x = "x", y = "y" }
"""
    assert _parse(text).questions[2].parents == (3, 2)
    # Whoever gives one of these may have given the other before.
    message = _refused(text.replace('after = ["merging", "artifact"]', 'after = ["merging", "smooth"]'))
    assert "question 'why' is asked after merging and smooth, which one volunteer may both give" in message
    assert message.endswith(": remove one from after")


def test_a_file_with_windows_line_ends_and_a_byte_order_mark_is_the_same_tree(tmp_path: Path) -> None:
    path = tmp_path / "rings.toml"
    path.write_bytes(b"\xef\xbb\xbf" + RINGS.replace("\n", "\r\n").encode())
    assert read_tree(path) == parse_tree(RINGS, "rings.toml", "rings")


# What is refused

_ONE = '[[question]]\nkey = "a"\nanswers = { yes = "a1", no = "a2" }\n'
_TWO = '[[question]]\nkey = "b"\nafter = ["a1"]\nanswers = { yes = "b1", no = "b2" }\n'
_THREE = '[[question]]\nkey = "c"\nafter = ["b1"]\nanswers = { yes = "c1", no = "c2" }\n'
_BOTH = _ONE + _TWO

FAULTS = {
    "a circle": (
        _ONE.replace("answers", 'after = ["c1"]\nanswers') + _TWO + _THREE,
        "questions 'a' -> 'c' -> 'b' -> 'a' are asked after one another in a circle: correct their after",
    ),
    "asked after itself": (_ONE.replace("answers", 'after = ["a2"]\nanswers'), "questions 'a' -> 'a' are asked after"),
    "an unknown parent": (
        FULL.replace('after = ["t_featured"]', 'after = ["t_feature"]'),
        "question 'ring-kind' is asked after t_feature, which no answer has as its column: did you mean t_featured?",
    ),
    "a parent that is nothing like a column": (_BOTH.replace('["a1"]', '["spiral"]'), "name a column of an earlier question"),
    "a parent that comes later": (
        _TWO + _ONE,
        "question 'b' is asked after a1 of question 'a', which comes later: list questions in the order",
    ),
    "a parent twice": (_BOTH.replace('["a1"]', '["a1", "a1"]'), "question 'b': after names a column twice: remove one"),
    "parents that do not exclude one another": (
        _BOTH + _THREE.replace('["b1"]', '["b1", "a1"]'),
        "question 'c' is asked after b1 and a1, which one volunteer may both give",
    ),
    "parents of independent questions": (
        _ONE + _TWO.replace('after = ["a1"]\n', "") + _THREE.replace('["b1"]', '["a1", "b1"]'),
        "question 'c' is asked after a1 and b1, which one volunteer may both give",
    ),
    "a column twice": (
        _BOTH.replace('"b2"', '"a2"'),
        "question 'b', answer 'no': column a2 already belongs to question 'a': each answer has a column of its own",
    ),
    "a column twice in one question": (_ONE.replace('"a2"', '"a1"'), "answer 'no': column a1 already belongs to question 'a'"),
    "a key twice": (_BOTH.replace('key = "b"', 'key = "a"'), "question 'a' appears twice: give each question its own key"),
    "one answer": (_ONE.replace(', no = "a2"', ""), "question 'a' needs at least two answers: add one, or rest ="),
    "no answers": ('[[question]]\nkey = "a"\n', "question 'a' needs at least two answers"),
    "no key": ('[[question]]\nanswers = { yes = "a1", no = "a2" }\n', "[[question]] 1 lacks key: add it"),
    "a blank key": (_ONE.replace('key = "a"', 'key = " "'), "[[question]] 1: key must be a text on one line, in quotes"),
    "a key that is a number": (_ONE.replace('"a"', "1"), "[[question]] 1: key must be a text on one line, in quotes"),
    "an unknown part": ('titel = "x"\n' + _ONE, "the file has 'titel', which is not part of a tree: did you mean title?"),
    "an unknown part of a question": (_ONE + "aftr = []\n", "[[question]] 1 has 'aftr', which is not part of a tree: did you"),
    "an unknown part, unlike any": (_ONE + "zzz = 1\n", "it may have key, title, text, after, answers, rest, phrases"),
    "an unknown part with a line break": ('"a\\nb" = 1\n' + _ONE, "the file has 'a\\nb', which is not part of a tree"),
    "a column that is a number": (_ONE.replace('"a2"', "2"), "question 'a', answer 'no': write answer = \"column\", "),
    "a column with a comma": (_ONE.replace('"a2"', '"a,2"'), "question 'a', answer 'no': write answer ="),
    "a column of many lines": (_ONE.replace('"a2"', '"""a\n2"""'), "question 'a', answer 'no': write answer ="),
    "a long column": (_ONE.replace('"a2"', f'"{"a" * 101}"'), "question 'a', answer 'no': write answer ="),
    "a blank answer": (_ONE.replace("no =", '"" ='), "question 'a', answer '': write answer ="),
    "answers as a list": (_ONE.replace('{ yes = "a1", no = "a2" }', '["a1", "a2"]'), "question 'a': answers must be a table"),
    "after as a text": (_BOTH.replace('["a1"]', '"a1"'), "question 'b': after must be a list of texts, as in after = ["),
    "phrases of another number": (_ONE + 'phrases = ["x"]\n', "question 'a': phrases has 1 texts for 2 answers"),
    "a rest that is an answer": (_ONE + 'rest = "no"\n', "question 'a': answer 'no' is both in answers and the rest"),
    "a rest of counts": (_ONE + 'rest = "x"\n[[votes]]\nkind = "counts"\n', "rest needs fractions, or counts with a total"),
    "a question that is no table": ("question = 3\n", "question must be written as [[question]], once for each"),
    "a single table": (_ONE.replace("[[question]]", "[question]"), "question must be written as [[question]], once for each"),
    "an unknown kind of votes": (
        _ONE + '[[votes]]\nkind = "percent"\n',
        "[[votes]] 1: kind 'percent' must be one of fractions, cumulative, counts",
    ),
    "two votes of one name": (_ONE + "[[votes]]\n[[votes]]\n", "[[votes]]: two are named 'fractions': give each a name"),
    "a tolerance that is a text": (_ONE + '[[votes]]\nwarning = "1"\n', "[[votes]] 1: warning must be a number of at least 0"),
    "a tolerance that is infinite": (_ONE + "[[votes]]\nerror = inf\n", "[[votes]] 1: error must be a number of at least 0"),
    "a tolerance in percent": (_ONE + "[[votes]]\nerror = 2\n", "[[votes]] 1: warning and error are fractions below 1"),
    "a warning above the error": (_ONE + "[[votes]]\nwarning = 0.2\nerror = 0.1\n", "warning and error are fractions below 1"),
    "normalise as a number": (_ONE + "[[votes]]\nnormalise = 1\n", "[[votes]] 1: normalise must be true or false"),
    "an id that is an answer": ('id = "a1"\n' + _ONE, "a1 is both the id of the galaxies and the column of an answer"),
    "no volunteers": ("volunteers = 0\n" + _ONE, "volunteers must be a whole number of at least 1"),
    "half a volunteer": ("volunteers = 2.5\n" + _ONE, "volunteers must be a whole number of at least 1"),
    "a blank name": ('name = ""\n' + _ONE, "the file: name must be a text on one line, in quotes"),
    "files without a column": (_ONE + '[files]\ntable = "t.csv"\nid = "x"\n', "[files] lacks file: add it"),
    "files as a text": ('files = "t.csv"\n' + _ONE, "[files] must be a table of names and values"),
    "a class without columns": (_ONE + "[classes.spiral]\n", "class 'spiral' lacks columns: name those that must reach"),
    "a class of an unknown column": (
        FULL.replace('columns = ["t_featured", "t_bright"]', 'columns = ["t_brigth"]'),
        "class 'ringed galaxy' names t_brigth, which the questions do not have: did you mean t_bright?",
    ),
    "a class described by an unknown question": (
        _ONE + '[classes.spiral]\ncolumns = ["a1"]\ndescribe = ["zzz"]\n',
        "class 'spiral' names zzz, which the questions do not have: choose from a",
    ),
    "a class of another kind": (_ONE + "[classes]\nspiral = 1\n", "class 'spiral' must be a table of names and values"),
    "thresholds in percent": (_ONE + "[classes]\nthresholds = [90]\n", "[classes]: thresholds must be a list of fractions"),
    "a reading of nothing": (_ONE + '[[reading]]\ntext = "x"\n', "[[reading]] 1 lacks columns: name one"),
    "a reading of an unknown column": (_ONE + '[[reading]]\ncolumns = ["b1"]\ntext = "x"\n', "[[reading]] 1 names b1, which"),
    "a score that is a text": (_ONE + '[scores]\n"a paper" = "good"\n', "[scores]: a paper must be a number of at least 0"),
    "a huge number": (_ONE + f"[scores]\n\"a paper\" = {'9' * 400}\n", "[scores]: a paper must be a number of at least 0, and"),
    "huge volunteers": (f"volunteers = {'9' * 400}\n" + _ONE, "volunteers must be a number of at least 0, and at most 1e+09"),
    "an empty file": ("", "holds no decision tree: add [[question]] with key and answers"),
    "no questions": ('name = "x"\nquestion = []\n', "holds no decision tree: add [[question]] with key and answers"),
    "not TOML": ("GalaxyID,Class1.1\n1,0.5\n", "not a TOML file ("),
    "brackets in brackets": (f"a = {'[' * 50_000}", "not a TOML file ("),
    "an endless number": (f"a = {'9' * 5_000}", "not a TOML file ("),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_tree_is_refused_in_one_line_that_names_what_and_where(fault: str) -> None:
    text, expected = FAULTS[fault]
    assert expected in _refused(text)


def test_the_texts_that_the_faults_are_made_of_are_trees() -> None:
    assert [len(_parse(text).questions) for text in (_ONE, _BOTH, _BOTH + _THREE)] == [1, 2, 3]


def test_a_toml_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    shutil.copy(Path(__file__).parents[2] / "pyproject.toml", path)
    with pytest.raises(TreeError, match=r"pyproject\.toml: holds no decision tree: add \[\[question\]\]"):
        read_tree(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'name = "\xe9"\n', "not a text in UTF-8: give --tree a TOML file with questions"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not a text in UTF-8: give --tree a TOML file with questions"),
        (b"# " + b"a" * 1_000_000, "larger than any tree (1,000,002 bytes)"),
    ],
)
def test_a_file_that_is_no_text_of_a_trees_size_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "tree.toml"
    path.write_bytes(content)
    with pytest.raises(TreeError) as caught:
        read_tree(path)
    assert str(caught.value).startswith(f"{path}: {expected}") and "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="is a folder: give --tree the TOML file of a tree, or one of kaggle, "):
        find_tree(tmp_path)
    with pytest.raises(TreeError, match=r"rings\.toml: no such file: give --tree the TOML file"):
        find_tree(tmp_path / "rings.toml")


def test_a_tree_is_found_by_name_or_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rings.toml").write_text(RINGS)
    (tmp_path / "gz2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_tree("gz2") is builtin_tree("gz2")  # whatever else has that name here
    assert find_tree("rings.toml") == find_tree(tmp_path / "rings.toml") == parse_tree(RINGS, "rings.toml", "rings")
    with pytest.raises(TreeError, match="--tree decals: no such tree: did you mean decals5\\?"):
        find_tree("decals")
    with pytest.raises(
        TreeError, match="--tree zzz: no such tree: choose from kaggle, decals12, decals5, desi, euclid, gz2, or "
    ):
        find_tree("zzz")


@pytest.mark.parametrize("name", builtin_names())
def test_the_name_of_a_tree_of_ours_is_refused_for_other_questions(tmp_path: Path, name: str) -> None:
    ours = builtin_tree(name)
    path = tmp_path / f"{name}.toml"
    path.write_text(f'{ours.text}\n[[question]]\nkey = "new"\nanswers = {{ a = "new_a", b = "new_b" }}\n', "utf-8")
    with pytest.raises(TreeError) as caught:
        find_tree(path)
    assert str(caught.value) == f'{path}: its name is that of another tree: give it a name of its own, name = "..."'
    path.write_text(f"{RINGS}", "utf-8")  # its name is that of the file
    with pytest.raises(TreeError, match="its name is that of another tree"):
        find_tree(path)
    path.write_text(f'{ours.text}\n[[votes]]\nname = "weighted"\nsuffix = "_weighted"\n', "utf-8")
    assert len(find_tree(path).layouts) == len(ours.layouts) + 1  # other votes of the same questions


def test_a_tree_is_kaggles_by_its_questions_and_not_by_its_name() -> None:
    kaggle = builtin_tree()
    assert [name for name in builtin_names() if is_kaggle(builtin_tree(name))] == ["kaggle"]
    assert is_kaggle(parse_tree(kaggle.text.replace('name = "kaggle"', 'name = "own"'), "own.toml", "own"))
    assert not is_kaggle(parse_tree(RINGS, "kaggle.toml", "kaggle"))


@pytest.mark.skipif(sys.platform == "win32", reason="names of files cannot have line breaks")
def test_the_name_of_a_file_does_not_break_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.toml"
    path.write_text(_ONE + "zzz = 1\n")
    with pytest.raises(GalaxyZooError) as caught:
        read_tree(path)
    assert "\n" not in str(caught.value)


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    """One of our files with lines left out, repeated, exchanged or cut short."""
    name = draw(st.sampled_from([*builtin_names(), "full"]))
    lines = (FULL if name == "full" else builtin_tree(name).text).splitlines()
    for _ in range(draw(st.integers(1, 4))):
        place, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["delete", "repeat", "exchange", "cut", "insert"])):
            case "delete" if len(lines) > 1:
                del lines[place]
            case "repeat":
                lines.insert(other, lines[place])
            case "exchange":
                lines[place], lines[other] = lines[other], lines[place]
            case "cut":
                lines[place] = lines[place][: draw(st.integers(0, len(lines[place])))]
            case "insert":
                cut = draw(st.integers(0, len(lines[place])))
                lines[place] = lines[place][:cut] + draw(st.text(max_size=3)) + lines[place][cut:]
    return "\n".join(lines)


@given(_mutated())
def test_a_changed_file_is_a_tree_or_is_refused_in_one_line(text: str) -> None:
    try:
        tree = _parse(text)
    except TreeError as error:
        assert str(error).startswith("my.toml: ") and "\n" not in str(error) and str(error).isprintable()
    else:
        votes = tree.project(np.ones((2, len(tree.columns))))
        assert tree.deviation(votes).max() < 1e-12
        assert tree.name.strip() and all(question.title.strip() for question in tree.questions)
        assert all(column in drawing(tree) for column in tree.columns)

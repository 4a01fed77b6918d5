"""Tables: the same numbers on a page, in CSV and in LaTeX, which no text can break."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from trainer.analysis.table import Measured, Table

NAN = float("nan")
TABLE = Table(
    ("question", "galaxies", "accuracy", "RMSE"),
    (
        ("1 smooth", 1234, Measured(0.7341772, 0.6835443, 0.7817246), 0.21),
        ("2 edge-on", 0, Measured(NAN, NAN, NAN), NAN),
        ("3 bar", 1, Measured(1.0, NAN, NAN), 0.0),
    ),
    "scores",
    "Scores",
    "How to read them.",
    ("", ",", ".3f", ".4f"),
)
HOSTILE = r"50 % of $x_1$ & {y} ~ ^ \input{/etc/passwd} # <b> ≥ 1" + "\n\nnext"


def test_a_page_shows_rounded_numbers_and_a_dash_where_there_is_none() -> None:
    assert TABLE.cells() == [
        [("1 smooth", False), ("1,234", True), ("0.734 (0.684 to 0.782)", True), ("0.2100", True)],
        [("2 edge-on", False), ("0", True), ("–", True), ("–", True)],
        [("3 bar", False), ("1", True), ("1.000", True), ("0.0000", True)],
    ]


def test_csv_holds_every_digit_and_intervals_in_columns_of_their_own() -> None:
    frame = pd.read_csv(io.StringIO(TABLE.csv()), keep_default_na=True)
    assert [*frame] == ["question", "galaxies", "accuracy", "accuracy_low", "accuracy_high", "RMSE"]
    assert frame.loc[0, ["accuracy", "accuracy_low", "accuracy_high"]].tolist() == [0.7341772, 0.6835443, 0.7817246]
    assert frame["accuracy"].isna().tolist() == [False, True, False]


def test_latex_has_the_rules_of_booktabs_and_ends_that_add_up() -> None:
    lines = TABLE.latex().splitlines()
    assert r"\usepackage{booktabs}" in lines[0] and lines[0].startswith("%")
    body = [line.removesuffix(r" \\").split(" & ") for line in lines if " & " in line]
    assert body[0] == ["question", "galaxies", "accuracy", "RMSE"]
    assert body[1] == ["1 smooth", "1,234", "$0.734^{+0.048}_{-0.050}$", "0.2100"]
    assert body[2] == ["2 edge-on", "0", "--", "--"] and body[3][2] == "$1.000$"
    assert [lines.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert (
        r"\begin{tabular}{lrrr}" in lines and r"\caption{Scores. How to read them.}" in lines and r"\label{tab:scores}" in lines
    )


def test_a_difference_has_one_sign() -> None:
    table = Table(("minus",), ((Measured(-0.0062, -0.0191, 0.007),), (Measured(0.01, 0.005, 0.02),)), "t", "T", forms=("+.4f",))
    assert table.cells()[0][0][0] == "-0.0062 (-0.0191 to +0.0070)"
    assert "$-0.0062^{+0.0132}_{-0.0129}$" in table.latex() and "$+0.0100^{+0.0100}_{-0.0050}$" in table.latex()


@pytest.mark.parametrize("place", ["cell", "header", "title", "caption"])
def test_no_text_is_a_command_in_latex(place: str, tmp_path: Path) -> None:
    texts = {name: HOSTILE if name == place else "plain" for name in ("cell", "header", "title", "caption")}
    table = Table((texts["header"], "n"), ((texts["cell"], 1),), "t", texts["title"], texts["caption"], ("", ","))
    text = table.latex()
    known = (r"\\%", r"\\\$", r"\\&", r"\\#", r"\\_", r"\\\{", r"\\\}", r"\\text\w+\{\}", r"\$\\geq\$")
    escaped = re.sub("|".join(known), "", text.split("\n", 1)[1])
    assert not re.search(r"[%$#_~^]|\\input", escaped), escaped
    if shutil.which("pdflatex"):
        document = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}" + f"\n{text}\n"
        (tmp_path / "t.tex").write_text(document + r"\end{document}", "utf-8")
        done = subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]

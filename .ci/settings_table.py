"""Write the table of a run's settings into docs/settings.md, from trainer/config.py; with --check, compare the two."""

import sys
from dataclasses import MISSING
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from trainer.config import DEFAULTS, RECIPES, SETTINGS, Setting

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BEGIN, END = "<!-- settings: .ci/settings_table.py -->\n", "<!-- end of settings -->\n"


def _values(setting: Setting) -> str:
    """What a flag accepts: its choices, or its unit with the legal range."""
    if setting.choices is not None:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    unit = f"`{setting.unit}`".replace("|", "\\|") if setting.unit else ""
    return ", ".join(filter(None, (unit, setting.range)))


def table() -> str:
    """The settings as Markdown, a row each."""
    of_article = RECIPES["article"]()
    lines = ["| flag | values | default | `--recipe article` | meaning |", "|---|---|---|---|---|"]
    group = ""
    for name, setting in SETTINGS.items():
        if setting.group != group:
            group = setting.group
            lines.append(f"| *{group}* | | | | |")
        default = (
            "required" if DEFAULTS[name] is MISSING else "off" if setting.kind is bool else setting.none or str(DEFAULTS[name])
        )
        article = str(of_article[name]) if name in of_article and of_article[name] != DEFAULTS[name] else ""
        lines.append(f"| `--{name}` | {_values(setting)} | {default} | {article} | {setting.help} |")
    free = ", ".join(
        f"`--{name}`" for name, setting in SETTINGS.items() if not setting.of_run and name not in ("tfrecords", "out")
    )
    lines += ["", f"A run resumes only with the settings that it was started with. These may change: {free}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    written = text[:start] + table() + text[stop:]
    if "--check" in sys.argv:
        sys.exit("docs/settings.md: its table is out of date: run .ci/settings_table.py" if written != text else 0)
    PAGE.write_text(written, "utf-8")

"""`look` reports every kind of fault of a page, and nothing for a page without faults."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.trainer.analysis.browser import Look

LookAt = Callable[..., Look]
PHONE, DESKTOP = 390, 1400


def _data_uri(colour: str, side: int = 40) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


SVG = (
    "data:image/svg+xml;base64,"
    + base64.b64encode(b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle r="4"/></svg>').decode()
)
# Everything that `look` might wrongly report: every kind of valid image, wide content that scrolls, off-screen text for
# screen readers, and every kind of working link.
GOOD = f"""
<h1 id=top>Galaxies</h1>
<img src="{_data_uri("red")}" alt="a red square"> <img src="{SVG}" alt="a disk">
<img src="{SVG}" style="width: 100%" alt="a wide disk">
<div style="display: none"><img src="{_data_uri("blue")}" alt="hidden"><img src="{SVG}" alt="hidden"></div>
<details><summary>More</summary><img loading=lazy src="{_data_uri("green")}" alt="in details"></details>
<div style="overflow-x: auto" tabindex=0><table style="width: 3000px"><tr><td>wide</table></div>
<span style="position: absolute; left: -9999px">for screen readers</span>
<svg viewBox="0 0 100 20" width="100%"><a href="#end" aria-label="end"><rect x="90" width="300" height="20"/></a></svg>
<a href="#end">end</a> <a href="#top">up</a> <a href="#caf%C3%A9">a name</a> <a href="data.csv">table</a>
<a href="https://example.org/">elsewhere</a> <a name="café"></a>
<div style="height: 20000px"></div>
<img loading=lazy src="{_data_uri("white")}" alt="far below"> <p id=end>the end</p>
"""


def _page(folder: Path, body: str, viewport: bool = True) -> Path:
    path = folder / "a page.html"
    meta = '<meta name="viewport" content="width=device-width, initial-scale=1">' if viewport else ""
    path.write_text(f"<!doctype html><html lang=en><meta charset=utf-8>{meta}<title>Page</title><body>{body}", "utf-8")
    (folder / "data.csv").write_text("a,b\n")
    return path


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_page_without_faults_has_none(width: int, look: LookAt, tmp_path: Path) -> None:
    assert look(_page(tmp_path, GOOD), width) == Look((), (), (), (), ())


def _chart(points: float, scheme: str = "light") -> str:
    """A drawing of 360 points, as on a page, with a text of a size as matplotlib writes it."""
    text = f"<g transform='translate(1 9) scale({points / 100} -{points / 100})'><path d='M0 0L50 50'/></g>"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' width='360pt' height='20pt' viewBox='0 0 360 20'>{text}</svg>"
    return f'<div class="drawing {scheme}"><img alt="of {points}" src="data:image/svg+xml,{svg}"></div>'


def test_it_measures_the_smallest_text_of_each_chart(look: LookAt, tmp_path: Path) -> None:
    style = "<style>.dark { display: none } img { width: 480px } @media (max-width: 600px) { img { width: 300px } }</style>"
    page = _page(tmp_path, style + _chart(8.3) + _chart(8.2) + _chart(14) + _chart(5, "dark"))
    assert look(page, DESKTOP).small_texts == ('"of 8.2": 10.9 pixels',)
    assert look(page, PHONE).small_texts == ('"of 8.3": 6.9 pixels', '"of 8.2": 6.8 pixels')


def test_it_names_figures_that_show_several_drawings_or_none(look: LookAt, tmp_path: Path) -> None:
    style = """<style>.dark, #none .light { display: none }
    @media screen and (prefers-color-scheme: dark) { .light { display: none } .dark { display: block } }
    @media (prefers-color-scheme: dark) { #paper .light { display: none } #paper .dark { display: block } }</style>"""
    both = _chart(9) + _chart(9, "dark")
    names = ("good", "paper", "none")
    page = _page(
        tmp_path,
        style + "".join(f"<figure id={name}>{both}</figure>" for name in names) + f"<figure id=one>{_chart(9)}</figure>",
    )
    assert look(page, DESKTOP).drawings == (
        "none, screen in light: nothing",
        "one, screen in dark: nothing",
        "none, print in light: nothing",
        "paper, print in dark: drawing dark",
        "none, print in dark: nothing",
    )


def test_it_names_what_some_readers_cannot_read_in_light_and_in_dark(look: LookAt, tmp_path: Path) -> None:
    style = """<style>body { color: #000; background: #fff } #pale { color: #ccc }
    @media (prefers-color-scheme: dark) { body { background: #000 } * { color: #fff } }</style>"""
    seen = look(_page(tmp_path, f"{GOOD}{style}<p id=pale>pale</p><img src='{SVG}'>"), DESKTOP).inaccessible
    assert [fault.partition(" (")[0] for fault in seen] == ["light, color-contrast", "light, image-alt", "dark, image-alt"]


def test_paper_shows_how_full_it_is_and_headings_alone_at_its_foot(look: LookAt, tmp_path: Path) -> None:
    from tests.trainer.analysis.browser import printed

    style = """<style>@page { margin: 13mm } body { margin: 0 } div { height: 130mm; background: #ccc }
    .next { break-before: page }</style>"""
    page = _page(
        tmp_path, f"{style}<div></div><p>Text.</p><h2>The first</h2><div class=next></div><div></div><h2>Last</h2><p>end"
    )
    sheets = printed(page, tmp_path / "page.pdf")
    assert [sheet.heading for sheet in sheets] == ["The first", "", ""]
    assert 0.5 < sheets[0].filled < 0.65 and 0.94 < sheets[1].filled < 0.98 and sheets[2].filled < 0.1
    assert all(sheet.darkest == 255 for sheet in sheets)


def test_it_names_every_image_that_cannot_be_shown(look: LookAt, tmp_path: Path) -> None:
    broken = "data:image/jpeg;base64,AAAA"
    body = f"""{GOOD}<img src="nowhere.png" alt="lost"><img src="{broken}" alt="broken">
    <div style="display: none"><img src="{broken}" alt="hidden and broken"></div>
    <div style="height: 20000px"></div><img loading=lazy src="{broken}" alt="far and broken"><img alt="of nothing">"""
    seen = look(_page(tmp_path, body), DESKTOP)
    assert [image.split('"')[1] for image in seen.missing_images] == [
        "lost", "broken", "hidden and broken", "far and broken", "of nothing",
    ]  # fmt: skip
    assert seen.missing_images[0].startswith("nowhere.png ")
    assert seen.requests == ((tmp_path / "nowhere.png").as_uri(),)


# Elements that overflow the page or their own box, and how they are reported.
SIDEWAYS = {
    "<div id=wide style='width: 1500px'>too wide</div>": '<div id=wide> "too wide": from 8 to 1508 of 1400 pixels',
    f"<section><p class=long>{'x' * 300}</p></section>": "<p class=long>",
    f"<div class=card style='width: 80px'>{'x' * 40}</div>": "<div class=card>",
    "<div class=cut style='width: 80px; overflow: hidden; white-space: nowrap'>one two three four</div>": "<div class=cut>",
    "<div style='overflow: hidden'><b id=off style='position: relative; left: 1390px'>cut off</b></div>": "<b id=off>",
    "<b id=left style='position: relative; left: -40px'>cut off on the left</b>": "<b id=left>",
    f"<table><tr>{'<td>wide</td>' * 9}<td style='min-width: 1300px'>column</table>": '<td> "column": from ',
}


def test_it_names_what_leaves_the_page_or_its_own_box(look: LookAt, tmp_path: Path) -> None:
    seen = look(_page(tmp_path, GOOD + "".join(SIDEWAYS)), DESKTOP)
    for fault, said in zip(seen.overflowing, SIDEWAYS.values(), strict=True):
        assert fault.startswith(said)
    assert seen == Look((), (), (), seen.overflowing, ())


def test_a_page_that_fits_a_desktop_may_be_too_wide_for_a_phone(look: LookAt, tmp_path: Path) -> None:
    page = _page(tmp_path, GOOD + "<div id=wide style='width: 500px'>half a desktop</div>")
    assert look(page, DESKTOP).overflowing == ()
    assert look(page, PHONE).overflowing == ('<div id=wide> "half a desktop": from 8 to 508 of 390 pixels',)


def test_a_page_without_a_viewport_is_no_page_for_a_phone(look: LookAt, tmp_path: Path) -> None:
    page = _page(tmp_path, "<p>short</p>", viewport=False)
    assert look(page, DESKTOP).overflowing == ()
    assert look(page, PHONE).overflowing == ("the page: laid out for 980 pixels, not 390: its <meta name=viewport> is missing",)


def test_it_hears_the_console_and_scripts_that_fail(look: LookAt, tmp_path: Path) -> None:
    scripts = "<script>console.error('it hurts')</script><script>console.warn('beware')</script><script>nothing.at.all</script>"
    seen = look(_page(tmp_path, GOOD + scripts), DESKTOP)
    assert sorted(seen.console) == ["error: it hurts", "exception: nothing is not defined", "warning: beware"]


def test_it_sees_every_request(look: LookAt, tmp_path: Path) -> None:
    body = """<link rel=stylesheet href="https://fonts.example/a.css"><link rel=stylesheet href="data.csv">
    <style>h1 { background: url(http://images.example/b.png) }</style><script src="http://127.0.0.1:9/c.js"></script>
    <iframe src="https://frames.example/"></iframe>"""
    seen = look(_page(tmp_path, GOOD + body), DESKTOP)
    assert sorted(seen.requests) == [
        (tmp_path / "data.csv").as_uri(), "http://127.0.0.1:9/c.js", "http://images.example/b.png",
        "https://fonts.example/a.css", "https://frames.example/",
    ]  # fmt: skip


def test_it_names_links_to_places_and_files_that_are_not_there(look: LookAt, tmp_path: Path) -> None:
    body = """<a href="#nowhere">dead</a> <a href="lost.csv">lost</a> <map name=tree><area href="#gone"></map>
    <svg><a href="#missing"><rect width=9 height=9 /></a></svg>"""
    seen = look(_page(tmp_path, GOOD + body), DESKTOP)
    assert sorted(seen.dead_links) == ["#gone", "#missing", "#nowhere", "lost.csv"]


def test_a_screenshot_shows_the_whole_page_on_screen_or_on_paper(look: LookAt, tmp_path: Path) -> None:
    style = "<style>body { margin: 0; background: black } @media print { body { background: white } }</style>"
    page = _page(tmp_path, f'{style}<div style="height: 20000px"></div><img src="{_data_uri("red")}" alt="at the end">')
    for media, ground in (("screen", (0, 0, 0)), ("print", (255, 255, 255))):
        look(page, PHONE, tmp_path / "page.png", media=media)
        picture = Image.open(tmp_path / "page.png").convert("RGB")
        assert picture.width == PHONE and picture.height > 20_000
        assert picture.getpixel((200, 10)) == picture.getpixel((200, 19_000)) == ground
        red, green, blue = picture.getpixel((20, 20_020))
        assert red > 200 and max(green, blue) < 50

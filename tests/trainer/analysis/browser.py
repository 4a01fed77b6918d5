"""The faults of a page in a reader's browser, found with headless Chromium."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

CHROMIUM = shutil.which("chromium")
SMALLEST = 11  # CSS pixels of text in a chart
PHONE = 600  # narrower windows are phones: they scale a page that does not fit, and respect its viewport
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

# Images below the fold and in closed <details> are decoded too. An SVG that is not displayed may have no natural width.
_IMAGES = """async () => {
    const missing = [];
    for (const image of document.images) {
        image.loading = "eager";
        const decoded = await image.decode().then(() => true, () => false);
        const shown = image.checkVisibility() && image.getBoundingClientRect().width > 0;
        if (!decoded || (shown && image.naturalWidth === 0))
            missing.push(`${image.getAttribute("src")?.slice(0, 80)} "${image.alt}"`);
    }
    return missing;
}"""

# Not faults, but scrolled or clipped on purpose: content of overflow-x: auto, parts of an <svg>, and elements wholly outside
# the page or one pixel wide (text for screen readers only). Of nested elements only the innermost is reported.
_OVERFLOWING = """() => {
    const page = document.documentElement;
    const wide = page.clientWidth;
    const style = element => getComputedStyle(element);
    const scrolls = element => element !== page && ["auto", "scroll"].includes(style(element).overflowX);
    const isInside = element => {
        for (let outer = element.parentElement; outer; outer = outer.parentElement)
            if (scrolls(outer)) return true;
        return false;
    };
    const name = element => {
        const text = element.textContent.trim().replace(/\\s+/g, " ").slice(0, 40);
        return `<${element.tagName.toLowerCase()}${element.id && ` id=${element.id}`}`
            + `${element.className && ` class=${element.className}`}> "${text}"`;
    };
    const found = new Map();
    for (const element of document.body.querySelectorAll("*")) {
        const box = element.getBoundingClientRect();
        if (element.ownerSVGElement || !element.checkVisibility() || box.width <= 1 || box.height <= 1 || isInside(element))
            continue;
        const beyond = box.right > wide + 1 || box.left < -1;
        if (beyond && box.right > 0 && box.left < wide + 10000)
            found.set(element, `${name(element)}: from ${Math.round(box.left)} to ${Math.round(box.right)} of ${wide} pixels`);
        else if (style(element).display !== "inline" && !scrolls(element) && element.clientWidth > 1
                 && element.scrollWidth > element.clientWidth + 1)
            found.set(element, `${name(element)}: ${element.scrollWidth} pixels in ${element.clientWidth}`);
    }
    const innermost = [...found].filter(([one]) => ![...found.keys()].some(other => other !== one && one.contains(other)));
    const faults = innermost.map(([, fault]) => fault);
    if (page.scrollWidth > wide && !faults.length)
        faults.push(`the page: ${page.scrollWidth} pixels in ${wide}`);
    return faults;
}"""

# Matplotlib writes text of p points as outlines scaled by p / 100.
_SMALL_TEXTS = """smallest => [...document.querySelectorAll(".drawing img")].flatMap(image => {
    if (!image.checkVisibility()) return [];
    const drawn = decodeURIComponent(image.src.slice(image.src.indexOf(",") + 1));
    const points = Math.min(...[...drawn.matchAll(/ scale\\(([\\d.]+) -/g)].map(([, scale]) => 100 * scale));
    const width = Number(drawn.match(/width=.([\\d.]+)pt/)[1]);
    const pixels = points * image.getBoundingClientRect().width / width;
    return pixels >= smallest ? [] : [`"${image.alt}": ${pixels.toFixed(1)} pixels`];
})"""

_DRAWINGS = """() => [...document.querySelectorAll("figure")].map(figure => [
    figure.id, [...figure.querySelectorAll(".drawing")].filter(one => one.checkVisibility()).map(one => one.className)])"""

_LINKS = """() => [...document.querySelectorAll("a, area")].map(
    link => link.getAttribute("href") ?? link.getAttribute("xlink:href")).filter(href => href !== null)"""
_HAS_TARGET = """name => document.getElementById(name) !== null || document.getElementsByName(name).length > 0"""


@dataclass(frozen=True)
class Look:
    """The faults of a page; all empty if it has none.

    console: every message and every script exception. requests: addresses requested, except the page itself and data: URIs.
    missing_images: those that cannot be shown. overflowing: elements that overflow the page or their own box horizontally,
    and a page that a phone lays out for a desktop. dead_links: links to a missing anchor in the page or a missing file
    beside it. small_texts: charts whose smallest text has fewer than 11 pixels. drawings: figures of which not exactly one
    drawing is shown, in light, in dark or on paper, or a dark one on paper. inaccessible: the serious and critical violations
    that axe-core finds, in light and in dark.
    """

    console: tuple[str, ...]
    requests: tuple[str, ...]
    missing_images: tuple[str, ...]
    overflowing: tuple[str, ...]
    dead_links: tuple[str, ...]
    small_texts: tuple[str, ...] = ()
    drawings: tuple[str, ...] = ()
    inaccessible: tuple[str, ...] = ()


def look(
    page_path: Path,
    width: int,
    screenshot: Path | None = None,
    media: Literal["screen", "print"] = "screen",
    scheme: Literal["light", "dark"] = "light",
) -> Look:
    """Open a local page offline in a window `width` pixels wide, below 600 as on a phone, and return its faults.

    screenshot: path for a PNG of the whole page, in the colours of `scheme`. Each page gets its own Chromium: Playwright's
    event loop, if left open, would prevent later tests from starting theirs.
    """
    from playwright.sync_api import sync_playwright

    address = page_path.resolve().as_uri()
    console: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        context = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True, is_mobile=width < PHONE, has_touch=width < PHONE
        )
        page = context.new_page()
        page.emulate_media(media=media, color_scheme=scheme)
        page.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: console.append(f"exception: {error}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address, wait_until="load")
        missing_images = page.evaluate(_IMAGES)
        overflowing = page.evaluate(_OVERFLOWING)
        dead_links = [href for href in page.evaluate(_LINKS) if not _leads_somewhere(page, page_path, href)]
        if (laid_out := page.evaluate("document.documentElement.clientWidth")) != width:
            overflowing.append(f"the page: laid out for {laid_out} pixels, not {width}: its <meta name=viewport> is missing")
        if screenshot is not None:
            page.screenshot(path=screenshot, full_page=True)
        small_texts = page.evaluate(_SMALL_TEXTS, SMALLEST)
        drawings = _ambiguous(page)
        inaccessible = _inaccessible(page)
        browser.close()
    others = [url for url in requests if url != address and not url.startswith("data:")]
    faults = (console, others, missing_images, overflowing, dead_links, small_texts, drawings, inaccessible)
    return Look(*map(tuple, faults))


def _ambiguous(page: Any) -> list[str]:
    """Figures of which not exactly one drawing is shown, or a dark one on paper."""
    faults = []
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "light"), ("print", "dark")):
        page.emulate_media(media=media, color_scheme=scheme)
        expected = "light" if media == "print" else scheme
        for name, shown in page.evaluate(_DRAWINGS):
            if len(shown) != 1 or expected not in shown[0].split():
                faults.append(f"{name}, {media} in {scheme}: {', '.join(shown) or 'nothing'}")
    page.emulate_media(media="screen", color_scheme="light")
    return faults


def _inaccessible(page: Any) -> list[str]:
    """What axe-core calls serious or critical, in light and in dark, with the first element of each kind."""
    from axe_playwright_python.sync_playwright import Axe

    faults = []
    for scheme in ("light", "dark"):
        page.emulate_media(media="screen", color_scheme=scheme)
        # Without preload, it requests no file again.
        for violation in Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                first = violation["nodes"][0]
                faults.append(f"{scheme}, {violation['id']} ({len(violation['nodes'])}): {first['html'][:200]}")
    return faults


@dataclass(frozen=True)
class Sheet:
    """A page of paper.

    filled: how far down it is, 0..1 within its margins. heading: the text of a heading or the header of a table at its foot,
    with nothing below it; else empty. darkest: the darkest pixel of its edge, 255 on white paper.
    """

    filled: float
    heading: str
    darkest: int


def printed(page_path: Path, pdf_path: Path, margin: float = 13, scheme: Literal["light", "dark"] = "dark") -> list[Sheet]:
    """Print a local page on A4 as PDF, and return its sheets. margin: at the top and the bottom, in millimetres."""
    import numpy as np
    import pypdfium2
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        page = browser.new_context(offline=True).new_page()
        page.emulate_media(media="print", color_scheme=scheme)
        page.goto(page_path.resolve().as_uri(), wait_until="load")
        page.pdf(path=pdf_path, format="A4", print_background=True)
        texts = page.evaluate("[...document.querySelectorAll('h1, h2, h3, thead')].map(heading => heading.textContent)")
        browser.close()
    headings = {"".join(text.split()): text for text in texts}
    sheets = []
    with pypdfium2.PdfDocument(pdf_path) as document:
        for paper in document:
            pixels = np.asarray(paper.render(scale=1, grayscale=True).to_pil())
            edge = margin / 25.4 * 72
            lowest = int(np.flatnonzero((pixels < 245).any(axis=1)).max(initial=0)) + 1
            lines = paper.get_textpage()
            rectangles = [lines.get_rect(number) for number in range(lines.count_rects())]
            last = ""
            if rectangles:
                below = min(bottom for _, bottom, _, _ in rectangles)
                line = [one for one in rectangles if one[1] < below + 6]
                if paper.get_height() - below > lowest - 4:  # nothing is drawn below the text
                    last = lines.get_text_bounded(
                        min(one[0] for one in line), below, max(one[2] for one in line), max(one[3] for one in line)
                    )
            ending = "".join(last.split())
            heading = next((text for squeezed, text in headings.items() if ending and squeezed.endswith(ending)), "")
            rim = min(pixels[:, 0].min(), pixels[:, -1].min(), pixels[0].min(), pixels[-1].min())
            sheets.append(Sheet((lowest - edge) / (pixels.shape[0] - 2 * edge), heading, int(rim)))
    return sheets


def _leads_somewhere(page: Any, page_path: Path, href: str) -> bool:
    link = urlsplit(href)
    if link.scheme or link.netloc:
        return True  # other sites are not checked
    if link.path:
        return (page_path.parent / unquote(link.path)).exists()
    name = unquote(link.fragment)
    return name in ("", "top") or bool(page.evaluate(_HAS_TARGET, name))

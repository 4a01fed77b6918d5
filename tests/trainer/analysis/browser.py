"""The faults of a page in a reader's browser, found with headless Chromium."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

CHROMIUM = shutil.which("chromium")
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

_LINKS = """() => [...document.querySelectorAll("a, area")].map(
    link => link.getAttribute("href") ?? link.getAttribute("xlink:href")).filter(href => href !== null)"""
_HAS_TARGET = """name => document.getElementById(name) !== null || document.getElementsByName(name).length > 0"""


@dataclass(frozen=True)
class Look:
    """The faults of a page; all empty if it has none.

    console: every message and every script exception. requests: addresses requested, except the page itself and data: URIs.
    missing_images: those that cannot be shown. overflowing: elements that overflow the page or their own box horizontally,
    and a page that a phone lays out for a desktop. dead_links: links to a missing anchor in the page or a missing file
    beside it.
    """

    console: tuple[str, ...]
    requests: tuple[str, ...]
    missing_images: tuple[str, ...]
    overflowing: tuple[str, ...]
    dead_links: tuple[str, ...]


def look(page_path: Path, width: int, screenshot: Path | None = None, media: Literal["screen", "print"] = "screen") -> Look:
    """Open a local page offline in a window `width` pixels wide, below 600 as on a phone, and return its faults.

    screenshot: path for a PNG of the whole page. Each page gets its own Chromium: Playwright's event loop, if left open,
    would prevent later tests from starting theirs.
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
        page.emulate_media(media=media)
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
        browser.close()
    others = [url for url in requests if url != address and not url.startswith("data:")]
    return Look(*map(tuple, (console, others, missing_images, overflowing, dead_links)))


def _leads_somewhere(page: Any, page_path: Path, href: str) -> bool:
    link = urlsplit(href)
    if link.scheme or link.netloc:
        return True  # other sites are not checked
    if link.path:
        return (page_path.parent / unquote(link.path)).exists()
    name = unquote(link.fragment)
    return name in ("", "top") or bool(page.evaluate(_HAS_TARGET, name))

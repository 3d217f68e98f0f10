"""What every page of ours has to pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTHS = (360, 1440)  # pixels: a phone, a screen
_OWN = ("file:", "data:", "blob:", "about:")


def watch(page: Page) -> None:
    """Notes from now on in `page.problems`: console errors and warnings, exceptions, dialogs, and requests that fail or
    go to a network."""
    problems: list[str] = []
    page.problems = problems
    page.on("console", lambda message: message.type in ("error", "warning") and problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    page.on("request", lambda request: request.url.startswith(_OWN) or problems.append(f"network: {request.url}"))

    def dismissed(dialog) -> None:
        problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", dismissed)


def open_page(page: Page, path: Path, width: int = 360, height: int = 740, scheme: str = "light") -> None:
    """Opens a file at a size in pixels, in the light or the dark."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    page.goto(path.resolve().as_uri(), wait_until="load")


def check_page(page: Page, path: Path, width: int) -> None:
    """Opens a file in the light and in the dark: it raises no error, asks for nothing from elsewhere, is no wider than
    the window, and takes the colours that it is asked for."""
    paper = {}
    for scheme in ("light", "dark"):
        open_page(page, path, width, scheme=scheme)
        assert page.problems == [], page.problems
        needed = page.evaluate("document.documentElement.scrollWidth")
        assert needed <= width, f"{needed} pixels wide in a window of {width} ({scheme})"
        paper[scheme] = brightness(page, "backgroundColor")
        assert abs(paper[scheme] - brightness(page, "color")) > 120, f"text is hard to read ({scheme})"
    assert paper["light"] > 128 > paper["dark"]


def brightness(page: Page, what: str) -> float:
    """Of the body's `color` or `backgroundColor`, 0 to 255."""
    numbers = page.evaluate(f"getComputedStyle(document.body).{what}.match(/\\d+/g).slice(0, 3).map(Number)")
    return sum(numbers) / 3

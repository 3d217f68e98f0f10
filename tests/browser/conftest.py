"""A headless Chromium for pages. Skipped with one reason where it, or playwright, is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.checks import watch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
# It runs as root in containers, has no GPU, and is to ask nothing of any network.
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("needs a Chromium: none of its names is on the path, and $CHROMIUM is not set")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def browser_page(browser: Browser) -> Iterator[Page]:
    """An empty page of a phone-like browser: 360x740, light, with touch, offline. What goes wrong in it is noted for
    `checks.check_page`."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, offline=True)
    page = context.new_page()
    watch(page)
    yield page
    context.close()

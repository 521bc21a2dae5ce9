"""The system's Chromium, and visitors in it whose every complaint is kept."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.tools import program

PATIENCE_MS: Final = 15_000  # for what never comes; no test waits for it to pass
FLAGS: Final = (
    "--no-sandbox",  # which needs rights that a container does not give
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
# What the page's policy has stopped. Said by the document, as not all of it reaches the console.
VIOLATIONS: Final = """
    document.addEventListener("securitypolicyviolation", (event) =>
        complain(`policy: ${event.effectiveDirective} stopped ${event.blockedURI} at ${location.pathname}`));
"""
# What a hostile text would call, had it become more than a text.
PWNED: Final = "window.pwned = (how) => complain(`ran: ${how}`);"


@contextmanager
def running_chromium() -> Iterator[Browser]:
    executable = program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Somebody with a browser of their own: cookies, pages, and all that went wrong in them.

    Args:
        options: of the context, such as `viewport` or `java_script_enabled`.
    """

    def __init__(self, browser: Browser, url: str, options: dict[str, Any]) -> None:
        self.url = url
        self.complaints: list[str] = []
        self.asked: list[tuple[str, str]] = []  # method and path of each request, in order
        self.context: BrowserContext = browser.new_context(base_url=url, **options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.expose_binding("complain", lambda _source, what: self.complaints.append(what))
        self.context.add_init_script(VIOLATIONS + PWNED)
        self.context.on("console", self._heard)
        self.context.on("weberror", lambda error: self.complaints.append(f"uncaught: {error.error}"))
        self.context.on("dialog", self._asked_back)
        self.context.on("request", self._requested)
        self.page: Page = self.context.new_page()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")

    def _requested(self, request: Request) -> None:
        if request.url.startswith(("blob:", "data:")):
            return
        if not request.url.startswith(f"{self.url}/"):
            self.complaints.append(f"elsewhere: {request.url}")
        self.asked.append((request.method, request.url.removeprefix(self.url)))

    def _asked_back(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def expects(self, pattern: str) -> None:
        """One kind of complaint that belongs to this test; there is at least one."""
        self.hear()
        others = [one for one in self.complaints if not re.search(pattern, one)]
        assert len(others) < len(self.complaints), f"no complaint like {pattern}: {self.complaints}"
        self.complaints[:] = others

    def hear(self) -> None:
        """What was said up to now is known after this."""
        for page in self.context.pages:
            page.evaluate("1")

    def sign_in(self, key: str, path: str = "/") -> Page:
        self.page.goto(path)
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda url: "/sign-in" not in url)
        return self.page

    def leave(self) -> None:
        """
        Raises:
            AssertionError: something went wrong in one of the pages.
        """
        try:
            self.hear()
            assert self.complaints == []
        finally:
            self.context.close()


def live(page: Page) -> None:
    """Returns once the page hears of what happens from now on."""
    page.wait_for_selector("html[data-live=on]", state="attached")


def is_wider_than_the_window(page: Page) -> bool:
    """Whether one has to scroll sideways to read it."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

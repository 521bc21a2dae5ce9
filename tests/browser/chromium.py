"""The system's Chromium, and visitors in it whose every complaint is kept."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.tools import program

PATIENCE_MS: Final = 60_000  # for what never comes; no test waits for it to pass
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

# Nothing, or how wide it is and what may be the cause: what has a scroll bar of its own is not.
WIDER: Final = """() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return [];
    const scrolls = (each) => getComputedStyle(each).overflowX !== "visible";
    const isWide = (each) => each.getBoundingClientRect().right > clientWidth;
    const isInScroller = (each) => each && (scrolls(each) || isInScroller(each.offsetParent));
    const causes = [...document.querySelectorAll("main *")].filter((each) => isWide(each) && !isInScroller(each));
    return [`${scrollWidth} px of ${clientWidth}`, ...causes.slice(0, 3).map((each) => each.outerHTML.slice(0, 120))];
}"""


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
        assert any(re.search(pattern, one) for one in self.complaints), self.complaints
        self.forgives(pattern)

    def forgives(self, pattern: str) -> None:
        """Complaints that may come, or not."""
        self.hear()
        self.complaints[:] = [one for one in self.complaints if not re.search(pattern, one)]

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
            assert not self.complaints, "\n".join(self.complaints)
        finally:
            self.context.close()


def live(page: Page) -> None:
    """Returns once the page hears of what happens from now on."""
    page.wait_for_selector("html[data-live=on]", state="attached")


def wider_than_the_window(page: Page) -> list[str]:
    """What one has to scroll the page sideways for."""
    found: list[str] = page.evaluate(WIDER)
    return found

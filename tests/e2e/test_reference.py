"""`/docs` in a real browser: the API's description, with nothing from anybody else's host."""

import httpx
import pytest
from playwright.sync_api import ConsoleMessage, Request, sync_playwright

from tests.e2e.parties import Klingel
from tests.e2e.processes import PATIENCE_S
from tests.tools import program


def test_a_person_reads_the_description_and_sends_a_request_from_it(klingel: Klingel) -> None:
    complaints: list[str] = []
    asked: list[str] = []

    def told(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def sent(request: Request) -> None:
        asked.append(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", told)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", sent)
        page.goto(f"{klingel.url}/docs")
        page.get_by_role("button", name="Authorize").first.click()
        page.get_by_role("textbox").first.fill(klingel.key)
        page.locator(".auth-btn-wrapper button.authorize").click()
        page.locator(".auth-btn-wrapper button.btn-done").click()
        operation = page.locator("#operations-tasks-listTasks")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table .response .microlight").first
        answer.wait_for()
        assert '"items": []' in answer.inner_text()
        browser.close()

    assert complaints == []
    assert all(url.startswith((klingel.url, "data:")) for url in asked)
    assert f"{klingel.url}/openapi.json" in asked


@pytest.mark.parametrize("name", ["swagger-ui.css.map", "..%2f__init__.py", "index.html"])
def test_nothing_else_of_the_bundle_is_served(klingel: Klingel, name: str) -> None:
    assert httpx.get(f"{klingel.url}/docs/{name}", timeout=PATIENCE_S, trust_env=False).status_code == 404


def test_no_other_page_can_frame_it(klingel: Klingel) -> None:
    headers = httpx.get(f"{klingel.url}/docs", timeout=PATIENCE_S, trust_env=False).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"

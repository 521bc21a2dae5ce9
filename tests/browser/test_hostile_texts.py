"""Texts of other people that would be more than texts: each is shown, and none does anything.

That nothing ran, and that no policy had to stop it, is what each visitor is asked at the end.
"""

from playwright.sync_api import Page, expect

from tests.browser.provider import call_back
from tests.e2e.parties import Klingel, Receiver, image_input

HOSTILE = (
    "<script>pwned('script')</script>",
    "\"><img src=x onerror=pwned('image')>",
    "</code></pre><svg onload=pwned('svg')>",
    "' onmouseover='pwned(1)' x='",
    "javascript:pwned('link')",
    "{{ 7 * 7 }}${7 * 7}",
    "<style>body { display: none }</style>",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "\u202egnp.exe\u0007",
)
OF_AN_ID = "\"><img/src=x/onerror=pwned('id')>"  # without spaces, which ids have not
ALL = " ".join(HOSTILE)
SEEN_ELEMENTS = (
    "main script, main style, main meta, main iframe, main svg[onload], main [onerror], main [onmouseover]"
)


def is_harmless(page: Page) -> None:
    assert page.locator(SEEN_ELEMENTS).count() == 0
    assert page.locator("main [href^='javascript:' i]").count() == 0
    expect(page.locator("main")).to_be_visible()


def test_a_task_that_is_hostile_all_over_is_shown_as_text(page: Page, klingel: Klingel) -> None:
    task = klingel.submit(
        "kling.multi-image-to-image",
        image_input(f"sandbox:never {ALL}"),
        external_task_id=OF_AN_ID,
        metadata={HOSTILE[0]: ALL, "customer": HOSTILE[2]},
    )
    call_back(klingel, task["id"], "failed", ALL)

    page.goto(f"/tasks/{task['id']}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE[0])
    expect(page.locator("#outputs .faults")).to_contain_text(HOSTILE[0])
    expect(page.locator("#outputs .faults")).to_contain_text(HOSTILE[5])
    expect(page.locator("#facts")).to_contain_text(OF_AN_ID)
    expect(page.locator("#metadata")).to_contain_text("</code></pre><svg onload=pwned('svg')>")
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    expect(page.locator("#callbacks pre").last).to_contain_text("<script>pwned('script')</script>")
    is_harmless(page)

    for path in ("/", "/tasks"):
        page.goto(path)
        expect(page.locator("main")).to_contain_text(HOSTILE[0])
        is_harmless(page)


def test_hostile_endpoints_and_keys_are_shown_as_text(page: Page, klingel: Klingel) -> None:
    body = {
        "kind": "webhook",
        "config": {"url": "https://example.com/?x=%22%3E<script>pwned(2)</script>"},
        "description": ALL[:200],
        "filter": "data.task.metadata.\"<img src=x onerror=pwned('filter')>\"",
    }
    endpoint = klingel.call("POST", "/endpoints", body, answers=201)
    klingel.call("POST", "/keys", {"name": HOSTILE[1]}, answers=201)
    for path in ("/endpoints", f"/endpoints/{endpoint['id']}", "/deliveries"):
        page.goto(path)
        expect(page.locator("main")).to_contain_text("pwned")
        is_harmless(page)
    page.goto("/keys")
    expect(page.get_by_role("row").filter(has_text=HOSTILE[1])).to_be_visible()
    is_harmless(page)


def test_a_hostile_answer_of_a_receiver_is_shown_as_text(
    page: Page, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    receiver.answers(400)
    try:
        body = {"kind": "webhook", "config": {"url": receiver.url(f"{hook}?x={HOSTILE[0]}")}}
        endpoint = klingel.call("POST", "/endpoints", body, answers=201)
        klingel.call("POST", f"/endpoints/{endpoint['id']}/test", answers=202)
        page.goto("/deliveries")
        page.get_by_role("link", name="endpoint.test").click()
        expect(page.locator("#attempts li").first).to_contain_text("400")
        is_harmless(page)
    finally:
        receiver.answers(200)


def test_hostile_addresses_of_pages_do_nothing(page: Page) -> None:
    for path in (
        '/tasks?status=<script>pwned(3)</script>&external_task_id="><img src=x onerror=pwned(4)>',
        "/tasks?done=<script>pwned(5)</script>",
        "/deliveries?endpoint_id='><script>pwned(6)</script>",
        "/endpoints?done=%3Cscript%3Epwned(7)%3C/script%3E",
    ):
        page.goto(path)
        is_harmless(page)


def test_the_way_back_from_signing_in_leads_to_no_other_host(page: Page, klingel: Klingel) -> None:
    for next in ("//example.com/", "https://example.com/", "/\\example.com", "javascript:pwned(8)"):
        page.goto(f"/sign-in?next={next}")
        assert page.url.startswith(f"{klingel.url}/")

"""Takes the pictures of `docs/images` from a Klingel with its sandbox: `python -m tests.browser.screenshots`."""

import base64
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from PIL import Image, ImageDraw
from playwright.sync_api import Page

from tests.browser.chromium import Visitor, running_chromium
from tests.browser.terminal import record
from tests.e2e.parties import ADMIN_KEY, Klingel, Receiver, running_klingel, running_receiver
from tests.e2e.processes import ROOT
from tests.ports import free_port

IMAGES: Final = ROOT / "docs" / "images"
DESK: Final = {"width": 1100, "height": 760}
TALL: Final = {"width": 1100, "height": 1240}
PHONE: Final = {"width": 390, "height": 760}
COLOURS: Final = 256  # enough for a page, and a third of the size

Draw = Callable[[ImageDraw.ImageDraw], None]


def cat(draw: ImageDraw.ImageDraw) -> None:
    fur = "#3d3a4f"
    draw.polygon([(190, 210), (210, 90), (290, 160)], fill=fur)
    draw.polygon([(410, 210), (390, 90), (310, 160)], fill=fur)
    draw.ellipse((170, 140, 430, 390), fill=fur)
    for left in (225, 325):
        draw.ellipse((left, 220, left + 50, 270), fill="#f4d35e")
        draw.ellipse((left + 18, 222, left + 32, 268), fill="#1c1b29")
    draw.polygon([(285, 300), (315, 300), (300, 318)], fill="#ee8fa0")
    for end in (285, 310, 335):
        draw.line((255, 315, 130, end), fill="#d9d9e3", width=4)
        draw.line((345, 315, 470, end), fill="#d9d9e3", width=4)


def hat(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((210, 90, 390, 320), fill="#b3261e")
    draw.rectangle((210, 260, 390, 300), fill="#1c1b29")
    draw.ellipse((120, 290, 480, 370), fill="#b3261e")


def bell(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((280, 70, 320, 110), fill="#c98a14")
    draw.pieslice((190, 100, 410, 420), 180, 360, fill="#e9b44c")
    draw.rectangle((190, 258, 410, 330), fill="#e9b44c")
    draw.polygon([(190, 328), (410, 328), (450, 375), (150, 375)], fill="#c98a14")
    draw.ellipse((275, 360, 325, 410), fill="#7d5200")


def drawn(motif: Draw, ground: str) -> str:
    """As Base64."""
    image = Image.new("RGB", (600, 450), ground)
    motif(ImageDraw.Draw(image))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def furnish(klingel: Klingel, receiver: Receiver) -> dict[str, str]:
    """What there is to see, and the ids by which it is shown."""
    shop = {"kind": "webhook", "config": {"url": receiver.url("/hook")}, "description": "Our shop"}
    klingel.call("POST", "/endpoints", shop, answers=201)
    old = {
        "kind": "webhook",
        "config": {"url": f"http://127.0.0.1:{free_port()}/"},
        "description": "The old shop",
        "types": ["task.succeeded", "task.failed"],
    }
    broken = klingel.call("POST", "/endpoints", old, answers=201)["id"]
    motifs = {"cat": drawn(cat, "#cfe8ef"), "hat": drawn(hat, "#f3e3c3"), "bell": drawn(bell, "#dfe5d0")}

    def pictures(*names: str) -> list[dict[str, str]]:
        return [{"subject_image": motifs[name]} for name in names]

    klingel.submit(
        "kling.multi-image-to-image",
        {"prompt": "The bell rings, sandbox:never", "subject_image_list": pictures("bell", "cat")},
    )
    tasks: list[tuple[str, str, dict[str, Any]]] = [
        ("image", "A cat that guards a bell", {"subject_image_list": pictures("cat", "bell")}),
        ("image", "This one is refused, sandbox:fail", {"subject_image_list": pictures("cat", "hat")}),
        ("image", "A hat on a bell", {"subject_image_list": pictures("bell", "hat")}),
        ("image", "All three, at night", {"subject_image_list": pictures("cat", "hat", "bell")}),
        (
            "video",
            "The cat puts on the hat and bows",
            {"image_list": [{"image": motifs["cat"]}, {"image": motifs["hat"]}]},
        ),
    ]
    shown = {}
    for number, (kind, prompt, input) in enumerate(tasks, start=1001):
        task = klingel.submit(
            f"kling.multi-image-to-{kind}",
            {"prompt": prompt, **input},
            external_task_id=f"order-{number}",
            metadata={"customer": "acme"},
        )
        klingel.events(task["id"])
        shown[kind] = task["id"]
    failing = next(one for one in klingel.deliveries(endpoint_id=broken) if one["attempts"])
    return {"video": shown["video"], "failing": failing["id"], "endpoint": broken}


def take(page: Page, path: str, name: str) -> None:
    page.goto(path)
    page.wait_for_function("""() => [...document.images].every(
        (image) => image.complete || image.getBoundingClientRect().top > innerHeight
    )""")
    file = io.BytesIO(page.screenshot())
    Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        IMAGES / f"{name}.png", optimize=True
    )


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as name, running_chromium() as chromium:
        folder = Path(name)
        for each in ("klingel", "receiver", "story"):
            (folder / each).mkdir()
        settings = {
            "KLINGEL_API_KEY": ADMIN_KEY,
            "KLINGEL_DATA_DIR": "data",
            "KLINGEL_PROVIDER": "sandbox",
            "KLINGEL_SANDBOX_STEP": "0.5",
            "KLINGEL_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        with (
            running_receiver(folder / "receiver") as receiver,
            running_klingel(folder / "klingel", **settings) as klingel,
        ):
            ids = furnish(klingel, receiver)
            desk = Visitor(chromium, klingel.url, {"viewport": DESK, "color_scheme": "light"})
            page = desk.sign_in(klingel.key)
            take(page, "/", "overview")
            take(page, "/tasks", "tasks")
            page.set_viewport_size(TALL)
            take(page, f"/tasks/{ids['video']}", "task")
            page.set_viewport_size(DESK)
            take(page, f"/deliveries/{ids['failing']}", "delivery")
            take(page, "/submit/kling.multi-image-to-video", "submit")
            desk.leave()
            phone = Visitor(chromium, klingel.url, {"viewport": PHONE, "color_scheme": "dark"})
            take(phone.sign_in(klingel.key), "/tasks", "phone")
            phone.leave()
        shutil.copy(record(folder / "story"), IMAGES / "story.svg")


if __name__ == "__main__":
    main()

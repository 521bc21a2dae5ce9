"""Every page of the dashboard that can be opened, with something on it to see."""

from collections.abc import Mapping
from dataclasses import dataclass

from tests.e2e.parties import Klingel, Receiver, image_input, video_input
from tests.e2e.processes import until


@dataclass(frozen=True)
class House:
    """Ids of what there is to see."""

    image: str
    film: str
    failed: str
    endpoint: str
    delivery: str
    event: str


def furnish(klingel: Klingel, receiver: Receiver, hook: str) -> House:
    """Tasks of several fates, an endpoint that hears of them, its deliveries, and a bot."""
    body = {
        "kind": "webhook",
        "config": {"url": receiver.url(hook)},
        "description": "Our shop",
        "types": ["task.*", "endpoint.test"],
    }
    endpoint = klingel.call("POST", "/endpoints", body, answers=201)
    image = klingel.submit(
        "kling.multi-image-to-image",
        image_input("A cat in a hat"),
        external_task_id="order-1001",
        metadata={"customer": "acme"},
        follow_ups=[
            {
                "on": "task.succeeded",
                "submit": {"type": "kling.multi-image-to-video", "input": video_input("The same, as a film")},
            }
        ],
    )
    film = klingel.submit("kling.multi-image-to-video", video_input("The cat bows"))
    failed = klingel.submit("kling.multi-image-to-image", image_input("sandbox:fail"))
    for task in (image, film, failed):
        klingel.events(task["id"])
    until(
        lambda: all(
            "stored_url" in output for task in (image, film) for output in klingel.task(task["id"])["outputs"]
        ),
        "the kept outputs",
    )
    [delivery, *_] = klingel.until_delivered(9, endpoint_id=endpoint["id"])
    return House(image["id"], film["id"], failed["id"], endpoint["id"], delivery["id"], delivery["event_id"])


# One with each kind of field; the others are made of the same.
FORMS = (
    "kling.multi-image-to-image",
    "kling.multi-image-to-video",
    "kling.avatar",
    "kling.new.image-to-video",
)


def paths(house: House) -> Mapping[str, list[str]]:
    """By the route, what to open of it."""
    return {
        "/": ["/"],
        "/tasks": ["/tasks", "/tasks?status=rejected", "/tasks?external_task_id=order-1001"],
        "/tasks/{id}": [f"/tasks/{id}" for id in (house.image, house.film, house.failed)],
        "/submit": ["/submit"],
        "/submit/{type}": [f"/submit/{name}" for name in FORMS],
        "/endpoints": ["/endpoints"],
        "/endpoints/new/{kind}": [f"/endpoints/new/{kind}" for kind in ("webhook", "task", "telegram")],
        "/endpoints/{id}": [f"/endpoints/{house.endpoint}"],
        "/deliveries": ["/deliveries", "/deliveries?status=dead"],
        "/deliveries/{id}": [f"/deliveries/{house.delivery}"],
        "/events/{id}": [f"/events/{house.event}"],
        "/bots": ["/bots"],
        "/usage": ["/usage"],
        "/keys": ["/keys"],
        "/push": ["/push"],
    }


def every_path(house: House) -> list[str]:
    return [path for some in paths(house).values() for path in some]

"""Promise 8, from outside: the provider forgets what it made, and Klingel does not."""

import hashlib
import io
from pathlib import Path

import av
import httpx
from PIL import Image

from tests.e2e.parties import Json, Klingel, Receiver, image_input, running_klingel, video_input
from tests.e2e.processes import until
from tests.ports import free_port

KEY = "an-admin-key-for-kept-outputs"
MADE = 3  # two pictures and a video


def get(url: str, **headers: str) -> httpx.Response:
    """As a person's browser does: without a key."""
    return httpx.get(url, headers=headers, timeout=90, trust_env=False)


def stored(klingel: Klingel, task: Json) -> list[Json]:
    """Its outputs, once all are kept."""

    def kept() -> list[Json] | None:
        outputs: list[Json] = klingel.task(task["id"])["outputs"]
        return outputs if outputs and all("stored_url" in output for output in outputs) else None

    return until(kept, f"kept outputs of {task['id']}")


def test_pictures_and_videos_are_there_after_the_provider_has_forgotten_them(
    tmp_path: Path, receiver: Receiver, hook: str
) -> None:
    settings = {
        "PORT": str(free_port()),
        "KLINGEL_API_KEY": KEY,
        "KLINGEL_ALLOW_NETWORKS": "127.0.0.0/8",
        "KLINGEL_SANDBOX_STEP": "0.05",
    }
    with running_klingel(tmp_path, **settings) as klingel:
        klingel.call(
            "POST", "/endpoints", {"config": {"url": receiver.url(hook)}, "types": ["output.*"]}, answers=201
        )
        image = klingel.submit("kling.multi-image-to-image", image_input("A cat in a hat") | {"n": 2})
        video = klingel.submit("kling.multi-image-to-video", video_input("A cat puts on a hat"))
        outputs = [*stored(klingel, image), *stored(klingel, video)]
        at_providers = [get(output["url"]).raise_for_status().content for output in outputs]
        told = [one.event["data"] for one in receiver.until(hook, lambda got: len(got) >= MADE)]
        hashes = {data["output"]["url"]: data["file"]["sha256"] for data in told}
        assert hashes == {
            output["url"]: hashlib.sha256(content).hexdigest()
            for output, content in zip(outputs, at_providers, strict=True)
        }

    # The sandbox keeps nothing: after a start it knows none of them.
    with running_klingel(tmp_path, **settings) as klingel:
        assert {get(output["url"]).status_code for output in outputs} == {404}
        # A link that an event carried opens the file, from its first byte or from wherever a player jumps to.
        for data in told:
            content = at_providers[[output["url"] for output in outputs].index(data["output"]["url"])]
            link = data["output"]["stored_url"]
            assert get(link).content == content
            part = get(link, range=f"bytes={len(content) // 2}-")
            assert (part.status_code, part.content) == (206, content[len(content) // 2 :])
        again = stored(klingel, video)[0]
        with av.open(again["stored_url"]) as film:
            assert sum(1 for _ in film.decode(video=0)) > 1
        poster = Image.open(io.BytesIO(get(again["poster_url"]).content))
        assert poster.format == "JPEG"
        assert klingel.call("GET", "/deliveries?kind=archive")["items"][0]["status"] == "delivered"
        assert not [line for line in [*klingel.process.errors] if '"error"' in line]

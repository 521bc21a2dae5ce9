"""Pictures of what each platform shows: `python -m tests.previews` posts to the fakes and draws what they received.

They are drawings of the message's parts in one neutral frame, not of the platforms' own clients. With Chromium as a
browser draws them; without, nothing is drawn.
"""

import asyncio
import base64
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageChops

from handlers.chat.dingtalk import Dingtalk
from handlers.chat.discord import Discord
from handlers.chat.feishu import Feishu
from handlers.chat.mattermost import Mattermost
from handlers.chat.platform import Button, Card, Press
from handlers.chat.slack import Slack
from handlers.chat.teams import Teams
from handlers.chat.telegram import Telegram
from handlers.chat.wecom import Wecom
from handlers.messages import message_of
from handlers.providers.sandbox.media import Recipe, collage
from service.domain.bots import Person
from service.domain.ids import CommandId
from service.domain.tasks import Output, OutputKind
from service.network.dialler import Dialler, open_dialler
from tests.contract import (
    test_chat_discord,
    test_chat_feishu,
    test_chat_group_bots,
    test_chat_mattermost,
    test_chat_slack,
    test_chat_telegram,
)
from tests.contract.push_services import LOOPBACK, NOW, TASK, event_of
from tests.fakes.discord import FakeDiscord
from tests.fakes.feishu import FakeFeishu
from tests.fakes.group_bots import FakeDingtalk, FakeTeams, FakeWecom
from tests.fakes.mattermost import FakeMattermost
from tests.fakes.slack import TOKEN, FakeSlack
from tests.fakes.telegram import FakeTelegram
from tests.integration.klingel import png

FOLDER: Final = Path(__file__).parents[1] / "docs" / "chat" / "previews"
PICTURE: Final = "https://klingel.example.com/v1/files/44791a8d2f12c146f968e88dc2947628a8499c25.png"
PROMPT: Final = "a lighthouse keeper's cat in a yellow raincoat"
WIDTH, SCALE = 520, 1

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a person sees, as HTML."""

    lines: Sequence[str]
    picture: str | None = None
    buttons: Sequence[str] = ()
    colour: str | None = None


def card(url: str = PICTURE) -> Card:
    outputs = [
        Output(
            kind=OutputKind.IMAGE, index=number, url=url, stored_url=url,
            expires_at=NOW + timedelta(days=30),
        )
        for number in range(2)
    ]  # fmt: skip
    command = CommandId("cmd_" + "0" * 32)
    return Card(
        message=message_of(event_of(outputs=outputs, makes="image", external_task_id=command), to_asker=True),
        prompt=PROMPT,
        asked_by=Person(workspace="T", chat="C", user="U", name="ada"),
        buttons=[
            Button(label="Again", press=Press.AGAIN, task_id=TASK),
            Button(label="Make a video of it", press=Press.FILM, task_id=TASK),
        ],
    )


# One for each platform: what its fake received, read as its clients do


async def mattermost(dialler: Dialler) -> Seen:
    server = FakeMattermost()
    async with server.running():
        await Mattermost(dialler).post(test_chat_mattermost.of_bot(server), card(), now=NOW)
    [post] = server.posts.values()
    shown = post.attachment
    return Seen(
        lines=[f"<b>{_link(shown['title_link'], _markdown(shown['title']))}</b>", _markdown(shown["text"])],
        picture=shown["image_url"],
        buttons=[action["name"] for action in shown["actions"]],
        colour=shown["color"],
    )


async def slack(dialler: Dialler) -> Seen:
    server = FakeSlack()
    async with server.running():
        voice = Slack(dialler)
        await voice.post(test_chat_slack.asked(voice, server, bot_token=TOKEN), card(), now=NOW)
    [message] = server.messages.values()
    lines: list[str] = []
    buttons: list[str] = []
    picture = None
    for block in message.shown["blocks"]:
        match block["type"]:
            case "image":
                picture = block["image_url"]
            case "actions":
                buttons += [one["text"]["text"] for one in block["elements"]]
            case _:
                texts = [block["text"]] if "text" in block else block.get("elements", [])
                lines += [_mrkdwn(one["text"]) for one in texts if "text" in one]
                if "image_url" in block.get("accessory", {}):
                    picture = block["accessory"]["image_url"]
    return Seen(lines=lines, picture=picture, buttons=buttons)


async def discord(dialler: Dialler) -> Seen:
    server = FakeDiscord(clock=lambda: NOW)
    async with server.running():
        voice = Discord(dialler)
        said, _ = test_chat_discord.asked(voice, server)
        await voice.post(test_chat_discord.to(server, said), card(), now=NOW)
    [message] = server.posted.values()
    embed = message.embed
    fields = [
        f"<b>{_markdown(one['name'])}</b><br>{_markdown(one['value'])}" for one in embed.get("fields", [])
    ]
    title = _markdown(embed["title"])
    footer = [f"<small>{escape(embed['footer']['text'])}</small>"] if "footer" in embed else []
    return Seen(
        lines=[
            f"<b>{_link(embed['url'], title) if 'url' in embed else title}</b>",
            _markdown(embed.get("description", "")),
            *fields,
            *footer,
        ],
        picture=embed.get("image", {}).get("url"),
        buttons=list(message.buttons),
        colour=f"#{embed['color']:06x}" if "color" in embed else None,
    )


async def telegram(dialler: Dialler) -> Seen:
    server = FakeTelegram()
    server.fetches_everything = True
    async with server.running():
        await Telegram(dialler).post(test_chat_telegram.to(server), card(), now=NOW)
    [shown] = server.shown.values()
    # The fake has seen to it that there are no tags but the few that Telegram reads.
    text = shown.html.replace("\n", "<br>")
    return Seen(
        lines=[text], picture=None if shown.media is None else shown.media[1], buttons=list(shown.buttons)
    )


async def feishu(dialler: Dialler) -> Seen:
    server = FakeFeishu()
    server.pictures["/made.png"] = png()
    async with server.running():
        voice = Feishu(dialler)
        place = test_chat_feishu.asked(voice, server)
        await voice.post(place, card(f"{server.url}/made.png"), now=NOW)
    [shown] = server.shown.values()
    lines = [f"<b>{escape(shown.card['header']['title']['content'])}</b>"]
    buttons: list[str] = []
    picture = None
    for element in shown.card["body"]["elements"]:
        match element["tag"]:
            case "div":
                lines.append(escape(element["text"]["content"]).replace("\n", "<br>"))
            case "img":
                picture = element["img_key"]
            case "column_set":
                buttons += [one["text"]["content"] for each in element["columns"] for one in each["elements"]]
    return Seen(lines=lines, picture=picture, buttons=buttons, colour=shown.card["header"]["template"])


async def dingtalk(dialler: Dialler) -> Seen:
    server = FakeDingtalk()
    async with server.running():
        await Dingtalk(dialler).post(test_chat_group_bots.to(server), card(), now=NOW)
    [shown] = server.said
    text = re.sub(r"^### (.*)$", r"**\1**", shown["text"], flags=re.MULTILINE)
    found = re.search(r"!\[\]\((.*?)\)\n*", text)
    return Seen(
        lines=[_markdown(text if found is None else text.replace(found[0], ""))],
        picture=None if found is None else found[1],
        buttons=[button["title"] for button in shown["btns"]],
    )


async def wecom(dialler: Dialler) -> Seen:
    server = FakeWecom()
    async with server.running():
        await Wecom(dialler).post(test_chat_group_bots.to(server), card(), now=NOW)
    [shown] = server.said
    articles = shown["news"]["articles"]
    titles = [f"<b>{_link(one['url'], escape(one['title']))}</b>" for one in articles]
    description = escape(articles[0]["description"]).replace("\n", "<br>")
    return Seen(lines=[titles[0], description, *titles[1:]], picture=articles[0]["picurl"])


async def teams(dialler: Dialler) -> Seen:
    server = FakeTeams()
    async with server.running():
        await Teams(dialler).post(test_chat_group_bots.to(server), card(), now=NOW)
    [shown] = server.said
    lines: list[str] = []
    for element in shown["body"]:
        match element["type"]:
            case "TextBlock":
                lines.append(f"<b>{escape(element['text'])}</b>")
            case "RichTextBlock":
                lines += [escape(run["text"]) for run in element["inlines"]]
    pictures = [element["url"] for element in shown["body"] if element["type"] == "Image"]
    return Seen(lines=lines, picture=pictures[0], buttons=[action["title"] for action in shown["actions"]])


PLATFORMS: Final[Mapping[str, Callable[[Dialler], Awaitable[Seen]]]] = {
    "mattermost": mattermost,
    "slack": slack,
    "discord": discord,
    "telegram": telegram,
    "feishu": feishu,
    "dingtalk": dingtalk,
    "wecom": wecom,
    "teams": teams,
}


def _link(url: str, label: str) -> str:
    return f'<a href="{escape(url)}">{label}</a>'


def _markdown(text: str) -> str:
    """As much of it as messages use: links, bold, quotes, and what a backslash takes the meaning from."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(escape(found[1]))
        return f"\0{len(kept) - 1}\0"

    text = escape(re.sub(r"\\([^\w\s])", keep, text), quote=False)
    text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", lambda found: _link(found[2], found[1]), text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"^&gt; ?(.*)$", r"<q>\1</q>", text, flags=re.MULTILINE)
    text = re.sub(r"^-# (.*)$", r"<small>\1</small>", text, flags=re.MULTILINE)
    text = re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], text)
    return re.sub(r"\n+", "<br>", text).replace("</q><br>", "</q>")


def _mrkdwn(text: str) -> str:
    """Slack's own; `&`, `<` and `>` in it are escaped already, as in HTML."""
    text = re.sub(r"<(https?://[^|>]+)\|([^>]+)>", lambda found: _link(found[1], found[2]), text)
    text = re.sub(r"(?<!\w)\*([^*\n]+)\*", r"<b>\1</b>", text)
    text = re.sub(r"^(?:>|&gt;) ?(.*)$", r"<q>\1</q>", text, flags=re.MULTILINE)
    return re.sub(r"\n+", "<br>", text).replace("</q><br>", "</q>")


# Drawing

STYLE: Final = """
body { margin: 0; padding: 16px; background: #fff; font: 15px/1.45 "DejaVu Sans", sans-serif; color: #1d1f24;
       width: 488px; }
.head { font-size: 13px; color: #6b7080; margin-bottom: 8px; }
.head b { color: #1d1f24; font-size: 15px; margin-right: 6px; }
.card { border-left: 4px solid var(--colour); padding: 2px 0 2px 12px; overflow-wrap: anywhere; }
.card > div { margin-bottom: 6px; }
a { color: #1264a3; text-decoration: none; }
q { display: block; border-left: 3px solid #d5d8df; padding-left: 8px; color: #555b6b; quotes: none; }
blockquote { margin: 2px 0; border-left: 3px solid #d5d8df; padding-left: 8px; color: #555b6b; }
small { color: #6b7080; }
img { max-width: 360px; border-radius: 8px; display: block; }
.buttons { margin-top: 10px; display: flex; gap: 8px; flex-wrap: wrap; }
.buttons span { border: 1px solid #c3c7d1; border-radius: 6px; padding: 5px 12px; font-size: 14px; }
"""


# No font of coloured signs is asked for.
PLAIN: Final = str.maketrans({"✅": "✔", "❌": "✘", "⏳": "…", "🔔": "♪", "\ufe0f": ""})


def page(platform: str, seen: Seen, picture: str) -> str:
    lines = "".join(f"<div>{line.translate(PLAIN)}</div>" for line in seen.lines if line)
    shown = "" if seen.picture is None else f'<img src="{picture}">'
    buttons = "".join(f"<span>{escape(label)}</span>" for label in seen.buttons)
    return (
        f'<!doctype html><meta charset="utf-8"><style>:root {{ --colour: {seen.colour or "transparent"} }}{STYLE}</style>'
        f'<div class="head"><b>Klingel</b>in {platform.capitalize()}</div>'
        f'<div class="card">{lines}{shown}<div class="buttons">{buttons}</div></div>'
    )


def picture() -> str:
    """What was made, as a `data:` URL: nothing is fetched."""
    made = collage(Recipe(sources=(), prompt=PROMPT, aspect_ratio="16:9"))
    made.thumbnail((360, 360))
    file = io.BytesIO()
    made.convert("RGB").save(file, "jpeg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def draw(chromium: str, html: str, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        source.write_text(html)
        subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},900",
                f"--screenshot={shot}", source.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with Image.open(shot) as image:
            drawn = image.convert("RGB")
    inked = ImageChops.difference(drawn, Image.new("RGB", drawn.size, "white")).getbbox()
    assert inked is not None, "nothing was drawn"
    bottom = min(inked[3] + 16, drawn.height)
    drawn.crop((0, 0, drawn.width, bottom)).quantize(128).save(target, optimize=True)


async def collect() -> dict[str, Seen]:
    async with open_dialler(LOOPBACK) as dialler:
        return {name: await look(dialler) for name, look in PLATFORMS.items()}


def main() -> int:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.stderr.write("There is no Chromium here; the pictures stay as they are.\n")
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = picture()
    for platform, seen in asyncio.run(collect()).items():
        draw(chromium, page(platform, seen, made), FOLDER / f"{platform}.png")
        sys.stdout.write(f"{FOLDER / platform}.png\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

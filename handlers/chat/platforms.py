"""All chat platforms: a new one is its file and its line here."""

from collections.abc import Sequence
from typing import Final

from handlers.chat.dingtalk import Dingtalk
from handlers.chat.discord import Discord
from handlers.chat.feishu import Feishu
from handlers.chat.mattermost import Mattermost
from handlers.chat.platform import Platform, Voice
from handlers.chat.slack import Slack
from handlers.chat.teams import Teams
from handlers.chat.telegram import Telegram
from handlers.chat.wecom import Wecom
from service.network.dialler import Dialler

SPEAKING: Final[Sequence[type[Voice]]] = (Dingtalk, Teams, Wecom)  # and nothing else
LISTENING: Final[Sequence[type[Platform]]] = (Discord, Feishu, Mattermost, Slack, Telegram)  # as well


def open_voices(dialler: Dialler) -> dict[str, Voice]:
    """By name: who can show tasks."""
    return {voice.name: voice for voice in (kind(dialler) for kind in (*SPEAKING, *LISTENING))}


def open_platforms(dialler: Dialler) -> dict[str, Platform]:
    """By name: who takes commands."""
    return {platform.name: platform for platform in (kind(dialler) for kind in LISTENING)}

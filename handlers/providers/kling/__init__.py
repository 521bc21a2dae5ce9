"""Kling, by its official API or through CometAPI: creates, callbacks, and the one read of a refresh."""

from handlers.providers.kling.authorization import authorization_for
from handlers.providers.kling.callbacks import CallbackReaders, KlingCallbacks
from handlers.providers.kling.client import KlingProvider

__all__ = ["CallbackReaders", "KlingCallbacks", "KlingProvider", "authorization_for"]

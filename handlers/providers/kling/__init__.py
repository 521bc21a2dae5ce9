"""Kling, by its official API or through CometAPI: creates, callbacks, and the one read of a refresh."""

from handlers.providers.kling.authorization import authorization_for
from handlers.providers.kling.callbacks import KlingCallbacks, callback_readers
from handlers.providers.kling.client import KlingProvider

__all__ = ["KlingCallbacks", "KlingProvider", "authorization_for", "callback_readers"]

"""A stand-in Kling behind CometAPI's and Kling's own paths, spoken to over real HTTP."""

from handlers.providers.sandbox.app import Sandbox, create_sandbox
from handlers.providers.sandbox.faults import Fault
from handlers.providers.sandbox.lives import Fetch
from handlers.providers.sandbox.settings import SandboxSettings
from handlers.providers.sandbox.way_out import GuardedTransport

__all__ = ["Fault", "Fetch", "GuardedTransport", "Sandbox", "SandboxSettings", "create_sandbox"]

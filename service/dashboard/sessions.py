"""Who is signed in at the dashboard: a signed cookie that names a key, never the key itself."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from service.domain.ids import KeyId
from service.domain.secrets import SessionSignatures
from service.domain.times import Clock

SESSION_LIFE: Final = timedelta(hours=12)
LONGEST_COOKIE: Final = 512
NOBODY: Final = ""  # the key of a visitor who has yet to sign in


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie of ours says. Whether its key is still good, and it has not been ended, is for the database to say."""

    cookie: str
    key_id: KeyId | None  # None: a visitor, who has a cookie for the sake of the form's token
    nonce: str = ""  # no other session's
    ends: int = 0  # seconds since 1970


class Sessions:
    """
    Args:
        secure: whether people come by https.
    """

    def __init__(self, signatures: SessionSignatures, *, secure: bool, clock: Clock) -> None:
        self._signatures = signatures
        self._secure = secure
        self._clock = clock
        # `__Host-` makes a browser refuse one that another host of the domain has set (RFC 6265bis, 4.1.3.2).
        self._name = "__Host-klingel" if secure else "klingel"
        self._watching: defaultdict[str, set[asyncio.Event]] = defaultdict(set)  # by nonce

    def begin(self, response: Response, key_id: KeyId | None) -> Session:
        """From this answer on. A new cookie each time: none that somebody else knows becomes a session."""
        ends = int((self._clock() + SESSION_LIFE).timestamp())
        nonce = secrets.token_urlsafe(18)
        content = f"{key_id or NOBODY}.{ends}.{nonce}"
        cookie = f"{content}.{self._signatures.sign('session', content)}"
        response.set_cookie(
            self._name,
            cookie,
            max_age=int(SESSION_LIFE.total_seconds()),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )
        return Session(cookie, key_id, nonce, ends)

    def forget(self, response: Response) -> None:
        """In the browser alone: what ends the session itself is kept in the database."""
        response.delete_cookie(self._name, path="/", secure=self._secure, httponly=True, samesite="strict")

    def read(self, request: Request[Any]) -> Session | None:
        """None for no cookie, and for one that is not ours, or has ended."""
        cookie = request.cookies.get(self._name, "")
        content, _, signature = cookie.rpartition(".")
        if len(cookie) > LONGEST_COOKIE or not self._signatures.verify(signature, "session", content):
            return None
        key_id, ends, nonce = content.split(".")
        if self._clock().timestamp() >= int(ends):
            return None
        return Session(cookie, KeyId(key_id) if key_id != NOBODY else None, nonce, int(ends))

    @contextmanager
    def watching(self, session: Session) -> Iterator[asyncio.Event]:
        """What goes on for as long as the session does. The event is set when it has ended, or is to be looked at anew."""
        ended = asyncio.Event()
        left_s = session.ends - self._clock().timestamp()
        timer = asyncio.get_running_loop().call_later(left_s, ended.set)
        self._watching[session.nonce].add(ended)
        try:
            yield ended
        finally:
            timer.cancel()
            self._watching[session.nonce].discard(ended)
            if not self._watching[session.nonce]:
                del self._watching[session.nonce]

    def end(self, nonce: str) -> None:
        """Somebody has signed out, here or at another process."""
        for ended in self._watching.get(nonce, ()):
            ended.set()

    def may_have_missed(self) -> None:
        """Some may have signed out: whoever watches asks again, and is let in or not."""
        for nonce in self._watching:
            self.end(nonce)

    def form_token(self, session: Session) -> str:
        """Stands in each form that this session is shown, and nowhere else."""
        return self._signatures.sign("form", session.cookie)

    def is_form_of(self, session: Session, token: str) -> bool:
        return self._signatures.verify(token, "form", session.cookie)

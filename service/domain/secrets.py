"""Keys derived from `KLINGEL_SECRET`, and what they protect: secrets at rest and callback URLs."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.domain.errors import ConfigurationError
from service.domain.ids import TaskId


def _derive(secret: str, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"klingel/{purpose}".encode()).derive(
        secret.encode()
    )


class Vault:
    """Encrypts what must be readable again: endpoint secrets and credentials of sinks.

    Args:
        secrets: newest first. The first one encrypts; any of them decrypts.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._fernet = MultiFernet(
            [Fernet(base64.urlsafe_b64encode(_derive(secret, "vault"))) for secret in secrets]
        )

    def seal(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """
        Raises:
            ConfigurationError: none of the secrets given sealed it.
        """
        try:
            return self._fernet.decrypt(sealed).decode()
        except (InvalidToken, ValueError):  # the latter: not even Base64
            raise ConfigurationError(
                "A stored secret was sealed under another KLINGEL_SECRET. "
                "List the former secret after the present one: KLINGEL_SECRET=new,old"
            ) from None


class CallbackTokens:
    """The unguessable part of a callback URL: an HMAC over provider and task, so nothing needs storing.

    Args:
        secrets: newest first. The first one mints; any of them is good, so URLs survive a rotation.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [_derive(secret, "callback") for secret in secrets]

    def mint(self, provider: str, task_id: TaskId) -> str:
        """43 characters of unpadded base64url."""
        return self._token(self._keys[0], provider, task_id)

    def verify(self, token: str, provider: str, task_id: str) -> bool:
        """In time that depends on neither the token nor on which key it matches."""
        given = token.encode(errors="replace")  # what has no UTF-8 is no token either
        matches = [
            hmac.compare_digest(given, self._token(key, provider, task_id).encode()) for key in self._keys
        ]
        return any(matches)

    @staticmethod
    def _token(key: bytes, provider: str, task_id: str) -> str:
        mac = hmac.digest(key, f"{provider}\n{task_id}".encode(errors="surrogatepass"), "sha256")
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def sandbox_key(secrets: Sequence[str]) -> str:
    """The key shown to a sandbox when none is set: unguessable, and the same after each start.

    A provider counts external task ids by account: under another key a create sent again would be a second task.
    """
    return base64.urlsafe_b64encode(_derive(secrets[0], "sandbox")).rstrip(b"=").decode()


def new_api_key() -> str:
    return "kl_" + secrets.token_urlsafe(32)


def hash_api_key(key: str) -> str:
    """Keys are 256 random bits, so one fast hash is enough; there is no password to guess."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_endpoint_secret() -> str:
    """`whsec_` and 32 random bytes (Standard Webhooks 1.0.0, "Signature scheme": 24 to 64 bytes)."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

"""Keys derived from `KLINGEL_SECRET`, and what they protect: secrets at rest and callback URLs."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.domain.errors import ConfigurationError

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, 2.4.2


def _derive(secret: str, purpose: str, *, length: int = 32) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=f"klingel/{purpose}".encode()).derive(
        secret.encode()
    )


class Vault:
    """Encrypts what must be readable again: endpoint secrets and credentials of sinks.

    Args:
        secrets: newest first. The first one encrypts; any of them decrypts.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        each = [Fernet(base64.urlsafe_b64encode(_derive(secret, "vault"))) for secret in secrets]
        self._newest, self._fernet = each[0], MultiFernet(each)
        # What was opened lately: an endpoint's secret signs each of its deliveries, and opening it takes 25 µs.
        self._opened = lru_cache(maxsize=1024)(self._open)

    def seal(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """
        Raises:
            ConfigurationError: none of the secrets given sealed it.
        """
        return self._opened(sealed)

    def seal_anew(self, sealed: str) -> str:
        """The same, under the newest secret: as it is where it was already.

        Raises:
            ConfigurationError: as `open`.
        """
        try:
            self._newest.decrypt(sealed)
        except (InvalidToken, ValueError):
            return self.seal(self.open(sealed))
        return sealed

    def _open(self, sealed: str) -> str:
        try:
            return self._fernet.decrypt(sealed).decode()
        except (InvalidToken, ValueError):  # the latter: not even Base64
            raise ConfigurationError(
                "A stored secret was sealed under another KLINGEL_SECRET. "
                "List the former secret after the present one: KLINGEL_SECRET=new,old"
            ) from None


class HmacKey:
    """HMAC-SHA256 (RFC 2104) under one key, whose two halves are hashed once for all messages.

    `hmac.digest` lets go of the interpreter each time, and then waits until another thread gives it back.
    """

    def __init__(self, key: bytes) -> None:
        # SHA-256's block; a longer key is hashed first.
        block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Signatures:
    """Proof that something came from us: an HMAC over its parts, so nothing needs storing. A subclass for each purpose,
    with keys of its own: what is signed for one is no proof for another.

    Args:
        secrets: newest first. The first one signs; any of them is good, so what was signed survives a rotation.
    """

    purpose: ClassVar[str]

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [HmacKey(_derive(secret, self.purpose)) for secret in secrets]

    def sign(self, *parts: str) -> str:
        """43 characters of unpadded base64url."""
        return _unpadded(self._keys[0].digest(_message(parts))).decode()

    def verify(self, signature: str, *parts: str) -> bool:
        """In time that depends on neither the signature nor on which key it matches."""
        given = signature.encode(errors="replace")  # what has no UTF-8 is no signature either
        message = _message(parts)
        matches = [hmac.compare_digest(given, _unpadded(key.digest(message))) for key in self._keys]
        return any(matches)


def _message(parts: Sequence[str]) -> bytes:
    return "\n".join(parts).encode(errors="surrogatepass")


class CallbackTokens(Signatures):
    """The unguessable parts of callback URLs. They sign the provider and the task's id."""

    purpose = "callback"


class FileSignatures(Signatures):
    """Of links to files. They sign the file's name, and when the link ends in seconds since 1970."""

    purpose = "file-links"


class SessionSignatures(Signatures):
    """Of cookies and form tokens at the dashboard. They sign which of the two it is, and its content."""

    purpose = "sessions"


class PushKeys:
    """The key pairs by which Web Push services know this Klingel (VAPID, RFC 8292): the same in every process.

    A browser subscribes under one of them for good, so whoever keeps a subscription keeps its private key with it.

    Args:
        secrets: newest first. New subscriptions are made under the first one's key.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._pairs = dict(_push_pair(secret) for secret in secrets)

    @property
    def public(self) -> str:
        """What a browser is given as `applicationServerKey`: an uncompressed point, unpadded base64url."""
        return next(iter(self._pairs))

    def private(self, public: str) -> str | None:
        """Its private key, 32 bytes in unpadded base64url; None for a key that is not ours."""
        return self._pairs.get(public)


def _push_pair(secret: str) -> tuple[str, str]:
    # 128 more bits than the order has, so that the remainder favours no key (FIPS 186-5, A.2.1).
    number = int.from_bytes(_derive(secret, "web-push", length=48)) % (_P256_ORDER - 1) + 1
    public = ec.derive_private_key(number, ec.SECP256R1()).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return _unpadded(point).decode(), _unpadded(number.to_bytes(32)).decode()


def _unpadded(data: bytes) -> bytes:
    """In Base64 that goes into URLs as it is."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sandbox_key(secrets: Sequence[str]) -> str:
    """The key shown to a sandbox when none is set: unguessable, and the same after each start.

    A provider counts external task ids by account: under another key a create sent again would be a second task.
    """
    return _unpadded(_derive(secrets[0], "sandbox")).decode()


def new_api_key() -> str:
    return "kl_" + secrets.token_urlsafe(32)


def hash_api_key(key: str) -> str:
    """Keys are 256 random bits, so one fast hash is enough; there is no password to guess."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_endpoint_secret() -> str:
    """`whsec_` and 32 random bytes (Standard Webhooks 1.0.0, "Signature scheme": 24 to 64 bytes)."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def asymmetric_key(secret: str) -> Ed25519PrivateKey:
    """What signs for those who know a public key alone.

    It is the endpoint's own, as its secret is: under one key for all, whoever registers somebody's URL could have
    genuine events of their own sent there.

    Args:
        secret: of an endpoint, with or without `whsec_`.
    """
    return Ed25519PrivateKey.from_private_bytes(_derive(secret.removeprefix("whsec_"), "webhook-v1a"))

"""A strict S3: one bucket, signatures checked, uploads in parts."""

import hashlib
import hmac
import re
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

from aiohttp import web

from tests.servers import running_app

ACCESS_KEY: Final = "AKIATESTTESTTESTTEST"
SECRET_KEY: Final = "a-secret-key-that-no-log-may-show"
REGION: Final = "eu-test-1"
LEAST_PART: Final = 5 * 1024 * 1024  # but for the last one (Amazon S3, "Multipart upload limits")


class FakeS3:
    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self.requests: list[str] = []
        self.largest_body = 0
        self.fails_with: int | None = None
        self.url = ""
        self._ids = count(1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeS3"]:
        async with running_app(self._handle) as self.url:
            yield self

    @property
    def environment(self) -> Mapping[str, str]:
        """As Amazon's own tools read it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT": self.url,
            "AWS_ALLOW_HTTP": "true",
        }

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.largest_body = max(self.largest_body, len(body))
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.fails_with is not None:
            return _error(self.fails_with, "InternalError")
        if not _is_signed(request, body):
            return _error(403, "SignatureDoesNotMatch")
        bucket, _, key = request.path.removeprefix("/").partition("/")
        if bucket != self.bucket:
            return _error(404, "NoSuchBucket")
        match request.method:
            case "PUT" if "uploadId" in request.query:
                return self._part(request.query["uploadId"], int(request.query["partNumber"]), body)
            case "PUT":
                return self._put(key, body, request.headers.get("content-type", ""))
            case "POST" if "uploads" in request.query:
                upload = f"upload-{next(self._ids)}"
                self.uploads[upload] = (key, {})
                self.types[key] = request.headers.get("content-type", "")
                return _xml(f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>"
                            f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")  # fmt: skip
            case "POST" if "delete" in request.query:
                keys = re.findall(r"<Key>([^<]+)</Key>", body.decode())
                for named in keys:
                    self.objects.pop(named, None)
                told = "".join(f"<Deleted><Key>{named}</Key></Deleted>" for named in keys)
                return _xml(f"<DeleteResult>{told}</DeleteResult>")
            case "POST":
                return self._complete(request.query["uploadId"], body)
            case "DELETE" if "uploadId" in request.query:
                self.uploads.pop(request.query["uploadId"], None)
                return web.Response(status=204)
            case "GET" | "HEAD":
                return self._get(key, request.headers.get("range"))
            case _:
                return _error(405, "MethodNotAllowed")

    def _put(self, key: str, body: bytes, type: str) -> web.Response:
        self.objects[key], self.types[key] = body, type
        return web.Response(headers={"etag": _etag(body)})

    def _part(self, upload: str, number: int, body: bytes) -> web.Response:
        if upload not in self.uploads:
            return _error(404, "NoSuchUpload")
        self.uploads[upload][1][number] = body
        return web.Response(headers={"etag": _etag(body)})

    def _complete(self, upload: str, body: bytes) -> web.Response:
        key, parts = self.uploads[upload]
        named = re.findall(r"<PartNumber>(\d+)</PartNumber>", body.decode())
        numbers = [int(number) for number in named]
        if numbers != sorted(parts) or any(len(parts[number]) < LEAST_PART for number in numbers[:-1]):
            return _error(400, "InvalidPart")
        del self.uploads[upload]
        self.objects[key] = b"".join(parts[number] for number in numbers)
        etag = _etag(self.objects[key])
        return _xml(
            f"<CompleteMultipartUploadResult><Key>{key}</Key><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        )

    def _get(self, key: str, range: str | None) -> web.Response:
        if key not in self.objects:
            return _error(404, "NoSuchKey")
        whole = self.objects[key]
        headers = {"etag": _etag(whole), "last-modified": "Sun, 22 Nov 2026 12:00:00 GMT"}
        if range is None:
            return web.Response(body=whole, headers=headers)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", range)
        assert asked is not None
        first, last = int(asked[1]), min(int(asked[2]), len(whole) - 1)
        headers["content-range"] = f"bytes {first}-{last}/{len(whole)}"
        return web.Response(status=206, body=whole[first : last + 1], headers=headers)


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _xml(text: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0" encoding="UTF-8"?>{text}', content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")


def _is_signed(request: web.Request, body: bytes) -> bool:
    """AWS Signature Version 4, as in "Authenticating Requests: Using the Authorization Header"."""
    parts = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?"
        r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})",
        request.headers.get("authorization", ""),
    )
    if parts is None:
        return False
    access, day, region, signed, signature = parts.groups()
    stated = request.headers.get("x-amz-content-sha256", "")
    if access != ACCESS_KEY or region != REGION or stated != hashlib.sha256(body).hexdigest():
        return False
    query = sorted(urllib.parse.parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
    canonical = "\n".join(
        [
            request.method,
            request.rel_url.raw_path,
            "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query),
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in signed.split(";")),
            "",
            signed,
            stated,
        ]
    )
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            request.headers["x-amz-date"],
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{SECRET_KEY}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), signature)


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")

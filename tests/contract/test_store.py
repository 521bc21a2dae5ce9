"""The store of kept outputs: a folder and S3 behave alike."""

import io
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.domain.errors import ConfigurationError, StorageUnavailable
from storage.kept_files import NoSuchFile
from storage.store import PART, Store, open_store
from tests.contract.s3 import SECRET_KEY, FakeS3

NAME = "ab12cd34ef56ab12cd34ef56ab12cd34ef56ab12.mp4"
LARGE = random.Random(1).randbytes(2 * PART + 12_345)


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeS3]:
    async with FakeS3("kept").running() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, s3: FakeS3, tmp_path: Path) -> Store:
    return open_store((tmp_path / "kept").as_uri() if request.param == "file" else "s3://kept/klingel")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def whole(store: Store, *, start: int = 0, end: int) -> bytes:
    return b"".join([piece async for piece in store.read(NAME, start=start, end=end)])


@pytest.mark.parametrize("content", [b"x", b"y" * 100_000, LARGE], ids=["a byte", "one part", "three parts"])
async def test_what_is_put_is_read_back(store: Store, content: bytes) -> None:
    await store.put(NAME, io.BytesIO(content), content_type="video/mp4")
    assert await whole(store, end=len(content)) == content


async def test_all_of_a_file_is_put_wherever_it_was_read_to(store: Store) -> None:
    file = io.BytesIO(b"0123456789")
    file.read()
    await store.put(NAME, file, content_type="video/mp4")
    assert await whole(store, end=10) == b"0123456789"


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (3, 10), (PART - 1, PART + 1), (len(LARGE) - 1, len(LARGE))]
)
async def test_a_range_is_read_alone(store: Store, start: int, end: int) -> None:
    await store.put(NAME, io.BytesIO(LARGE), content_type="video/mp4")
    assert await whole(store, start=start, end=end) == LARGE[start:end]


async def test_a_large_file_comes_in_pieces(store: Store) -> None:
    await store.put(NAME, io.BytesIO(LARGE), content_type="video/mp4")
    pieces = [len(piece) async for piece in store.read(NAME, start=0, end=len(LARGE))]
    assert max(pieces) <= PART


async def test_what_is_not_there_is_said_before_the_first_piece(store: Store) -> None:
    with pytest.raises(NoSuchFile):
        await anext(store.read(NAME, start=0, end=10))


async def test_what_is_dropped_is_gone_and_dropping_nothing_is_fine(store: Store) -> None:
    await store.put(NAME, io.BytesIO(b"content"), content_type="video/mp4")
    for _ in range(2):
        await store.drop(NAME)
    with pytest.raises(NoSuchFile):
        await anext(store.read(NAME, start=0, end=7))


async def test_a_second_file_of_the_same_name_takes_the_place_of_the_first(store: Store) -> None:
    """An attempt that was cut off after it had stored begins anew."""
    for content in (b"first one", b"second"):
        await store.put(NAME, io.BytesIO(content), content_type="video/mp4")
    assert await whole(store, end=6) == b"second"


class Breaking(io.BytesIO):
    """A disk that fails in the middle of a file."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > PART:
            raise OSError("the disk is gone")
        return super().read(size)


async def test_a_file_that_breaks_off_is_not_there_at_all(store: Store, s3: FakeS3, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        await store.put(NAME, Breaking(LARGE), content_type="video/mp4")
    with pytest.raises(NoSuchFile):
        await anext(store.read(NAME, start=0, end=7))
    await store.drop(NAME)
    assert files_in(tmp_path) == []
    assert s3.objects == {}


# A folder


async def test_a_folder_is_for_nobody_else_and_leaves_no_half_file(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a b" / "kept").as_uri())
    assert (tmp_path / "a b" / "kept").stat().st_mode & 0o077 == 0
    await store.put(NAME, io.BytesIO(b"content"), content_type="video/mp4")
    draft = tmp_path / "a b" / "kept" / NAME[:2] / f"{NAME}#1"  # as a crash in the middle leaves it
    draft.write_bytes(b"con")
    await store.drop(NAME)
    assert files_in(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match="/proc/none/kept"):
        open_store("file:///proc/none/kept")


async def test_a_folder_that_went_away_is_storage_trouble(tmp_path: Path) -> None:
    store = open_store((tmp_path / "kept").as_uri())
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").write_text("not a folder")
    with pytest.raises(StorageUnavailable):
        await store.put(NAME, io.BytesIO(b"content"), content_type="video/mp4")


# S3


async def test_in_a_bucket_files_lie_in_their_folder_with_their_type(s3: FakeS3) -> None:
    store = open_store("s3://kept/klingel")
    for content in (b"small", LARGE):
        await store.put(NAME, io.BytesIO(content), content_type="video/mp4")
        assert s3.objects == {f"klingel/ab/{NAME}": content}
        assert s3.types == {f"klingel/ab/{NAME}": "video/mp4"}


async def test_a_large_file_goes_to_a_bucket_in_parts(s3: FakeS3) -> None:
    """No request, and so no part in memory, is larger than one of them."""
    await open_store("s3://kept/klingel").put(NAME, io.BytesIO(LARGE), content_type="video/mp4")
    assert s3.largest_body == PART
    assert s3.uploads == {}


async def test_credentials_that_do_not_fit_store_nothing_and_are_told_to_nobody(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "another-secret-key-that-no-log-may-show"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    with pytest.raises(StorageUnavailable) as refused:
        await open_store("s3://kept/klingel").put(NAME, io.BytesIO(b"content"), content_type="video/mp4")
    assert s3.objects == {}
    told = refused.value.detail + "".join(capsys.readouterr())
    assert wrong not in told
    assert SECRET_KEY not in told
    assert "127.0.0.1" not in refused.value.detail


async def test_a_bucket_that_is_ill_is_storage_trouble(s3: FakeS3) -> None:
    s3.fails_with = 500
    store = open_store("s3://kept/klingel")
    with pytest.raises(StorageUnavailable):
        await store.put(NAME, io.BytesIO(b"content"), content_type="video/mp4")
    with pytest.raises(StorageUnavailable):
        await anext(store.read(NAME, start=0, end=7))

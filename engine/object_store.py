"""Artifacts roots on object stores: what fsspec leaves open there.

A user sets credentials once, in the ways that botocore knows (variables, profiles, roles of machines) or in fsspec's
configuration. deltalake does not ask fsspec, so it is told here what fsspec found. There are no renames and no locks
on an object store: an object appears as a whole when it is put, and of several who create it one does (`create`).
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import IO, Any, cast

import fsspec

from treadle.errors import StorageError

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
_WRITER = "treadle-writer"
"""Metadata of an object that was created: who did, for an answer that got lost."""
_TRIES = 10
# Larger objects are put in parts; s3fs would hold 10 of 50 MiB in memory, for each file that is written.
_PART_BYTES = 16 * 2**20
_PARTS_AT_ONCE = 4


def filesystem_options(url: str) -> dict[str, Any]:
    """What to open the file system of a root with.

    Listings are not kept: others write there, and a listing of before says that a file is not there. s3fs asks for
    the size of a file before it reads all of it, unless it is to do so in one piece.
    """
    scheme = url.partition("://")[0]
    whole = {"max_concurrency": 1} if scheme in ("s3", "s3a") else {}
    return {"use_listings_cache": False, **whole} if scheme in SCHEMES else {}


def is_s3(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether it is s3fs."""
    return "s3" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def delta_options(fs: fsspec.AbstractFileSystem) -> dict[str, str] | None:
    """deltalake's storage options for what an s3fs file system is connected to; None where it asks its own variables.

    Credentials are those of now, renewed where they go off: a table is to be opened with these, not kept open.
    """
    if not is_s3(fs):
        return None
    s3 = cast(Any, fs)
    client = s3.s3
    options = {"aws_region": _region(client.meta.region_name), **_endpoint(client.meta), **_extras(s3)}
    credentials = client._request_signer._credentials
    if s3.anon or credentials is None:
        return {**options, "aws_skip_signature": "true"}
    frozen = fsspec.asyn.sync(s3.loop, credentials.get_frozen_credentials)
    options |= {"aws_access_key_id": frozen.access_key, "aws_secret_access_key": frozen.secret_key}
    return {**options, "aws_session_token": frozen.token} if frozen.token else options


def _region(name: str | None) -> str:
    return "us-east-1" if name in (None, "aws-global") else str(name)


def _endpoint(meta: Any) -> dict[str, str]:
    """Nothing for Amazon's own, which deltalake knows by the region."""
    url = str(meta.endpoint_url)
    if url in ("https://s3.amazonaws.com", f"https://s3.{meta.region_name}.amazonaws.com"):
        return {}
    return {"aws_endpoint_url": url, **({"aws_allow_http": "true"} if url.startswith("http://") else {})}


def _extras(s3: Any) -> dict[str, str]:
    extras = {}
    if encryption := s3.s3_additional_kwargs.get("ServerSideEncryption"):
        extras["aws_server_side_encryption"] = encryption
    if key := s3.s3_additional_kwargs.get("SSEKMSKeyId"):
        extras["aws_sse_kms_key_id"] = key
    if s3.requester_pays:
        extras["aws_request_payer"] = "true"
    if s3.client_kwargs.get("verify") is False:
        extras["allow_invalid_certificates"] = "true"
    return extras


@contextlib.contextmanager
def putting(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[IO[bytes]]:
    """A file that is put as one object when the block ends without an error.

    It is made in the folder for temporary files first, so that an error puts nothing, whatever the store.
    """
    parts = {"chunksize": _PART_BYTES, "max_concurrency": _PARTS_AT_ONCE} if is_s3(fs) else {}
    try:
        with tempfile.NamedTemporaryFile(prefix="treadle-") as file:
            yield cast(IO[bytes], file)
            file.flush()
            fs.put_file(file.name, path, **parts)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageError(
            f"No space left in {tempfile.gettempdir()}, where {path} is made before it is put; free some, or set "
            "TMPDIR to another folder."
        ) from error


def create(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    """Puts an object where there is none; of several who try at once, one is told that it did."""
    # When the answer to a put is lost, s3fs puts again, and is told that the object is there: it may be its own.
    writer = uuid.uuid4().hex
    options: dict[str, Any] = {"Metadata": {_WRITER: writer}} if is_s3(fs) else {}
    for trial in range(_TRIES):
        try:
            fs.pipe_file(path, data, mode="create", **options)
            return True
        except FileExistsError:
            break
        except OSError as error:
            code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if code in ("PreconditionFailed", "412"):
                break
            # Another put of the object is under way, and which of them wins is open.
            if code not in ("ConditionalRequestConflict", "409") or trial == _TRIES - 1:
                raise
            time.sleep(0.05 * 2 ** min(trial, 6))
    return bool(options) and _written_by(fs, path) == writer


def _written_by(fs: Any, path: str) -> str | None:
    try:
        return cast(str | None, fs.metadata(path, refresh=True).get(_WRITER))
    except FileNotFoundError:
        return None

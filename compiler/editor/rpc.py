"""Messages of the language server protocol on two streams: JSON behind a header that tells its length."""

import json
from collections.abc import Iterator
from typing import IO, Any

Message = dict[str, Any]

LARGEST_BYTES = 64 << 20
_LENGTH = b"content-length:"


class BrokenStreamError(Exception):
    """What came is no message, so that nothing behind it can be found either."""


def messages(stream: IO[bytes]) -> Iterator[Message]:
    """Messages as they come, until the stream ends.

    Raises:
        BrokenStreamError: the stream holds something else.
    """
    while (size := _size(stream)) is not None:
        body = stream.read(size)
        if len(body) < size:
            return
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BrokenStreamError("the body of a message is no JSON") from error
        if not isinstance(found, dict):
            raise BrokenStreamError("a message is one JSON object")
        yield found


def _size(stream: IO[bytes]) -> int | None:
    """The length that the next header tells; None at the end of the stream."""
    size: int | None = None
    while (line := stream.readline(4096)) not in (b"", b"\r\n", b"\n"):
        if line.lower().startswith(_LENGTH):
            told = line[len(_LENGTH) :].strip()
            size = int(told) if told.isdigit() and len(told) < 12 else None
    if not line:
        return None
    if size is None or size > LARGEST_BYTES:
        raise BrokenStreamError("a message begins with `Content-Length: N`")
    return size


def write_message(stream: IO[bytes], message: Message) -> None:
    """Send a message."""
    body = json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False, separators=(",", ":")).encode()
    stream.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    stream.flush()

"""The server's side of D-Bus authentication, where the kernel has told already who it is.

See "Authentication Protocol" in the D-Bus specification. EXTERNAL is the only mechanism. File
descriptors may be sent, since many clients insist; no call needs one, and the kernel closes them.
"""

import os
from asyncio import StreamReader, StreamWriter
from typing import Final

_LONGEST_LINE: Final = 512
_MOST_LINES: Final = 32


class HandshakeError(Exception):
    """The other side does not speak D-Bus, or claims to be somebody else."""


async def greet(reader: StreamReader, writer: StreamWriter, guid: str) -> None:
    """Authenticate who connects as this user. Raises HandshakeError, or EOFError at its end."""
    if await reader.readexactly(1) != b"\0":
        raise HandshakeError("it does not speak D-Bus")
    accepted = False
    for _ in range(_MOST_LINES):
        line = await reader.readuntil(b"\r\n")
        if len(line) > _LONGEST_LINE:
            raise HandshakeError("its authentication is too long")
        command, _, rest = line[:-2].partition(b" ")
        if command == b"BEGIN" and accepted:
            return
        if command == b"BEGIN":
            raise HandshakeError("it did not say who it is")
        answer = _answer(command, rest)
        accepted = accepted or answer == b"OK"
        writer.write(b"OK %s\r\n" % guid.encode() if answer == b"OK" else answer + b"\r\n")
    raise HandshakeError("its authentication has no end")


def _answer(command: bytes, rest: bytes) -> bytes:
    if command == b"AUTH" and rest == b"EXTERNAL":
        return b"DATA"
    if command == b"AUTH" and rest.startswith(b"EXTERNAL "):
        return b"OK" if _is_this_user(rest.removeprefix(b"EXTERNAL ")) else b"REJECTED EXTERNAL"
    if command == b"DATA":
        return b"OK" if not rest or _is_this_user(rest) else b"REJECTED EXTERNAL"
    if command in {b"AUTH", b"CANCEL", b"ERROR"}:
        return b"REJECTED EXTERNAL"
    if command == b"NEGOTIATE_UNIX_FD":
        return b"AGREE_UNIX_FD"
    return b"ERROR"


def _is_this_user(claimed: bytes) -> bool:
    try:
        return bytes.fromhex(claimed.decode()) == str(os.getuid()).encode()
    except ValueError:
        return False

"""What pyfuse3 cannot ask the kernel for: to keep the targets of symbolic links.

Without it the kernel asks for a link's target whenever it comes across the link, and a tree with
/lib and /bin as links has one in every path. The first request of a connection, FUSE_INIT, is given
to libfuse by a socket in the device's place, and its answer goes to the kernel with a flag more.

Source: include/uapi/linux/fuse.h of the kernel.
"""

import os
import socket
import struct
from typing import Final

_CACHE_SYMLINKS: Final = 1 << 23  # Linux 4.20
_FLAGS_OF_REQUEST: Final = 40 + 12  # behind fuse_in_header; fuse_init_in: major, minor, read ahead
_FLAGS_OF_ANSWER: Final = 16 + 12  # behind fuse_out_header; fuse_init_out begins the same way
_FLAGS: Final = struct.Struct("=I")
_LARGEST: Final = 1 << 18  # bytes of a request; the kernel refuses to give one to less than 8 KiB


class Handshake:
    """Stands between libfuse and the kernel for one request."""

    def __init__(self) -> None:
        self._device = -1
        self._socket: socket.socket | None = None
        self._keeps_links = False

    def begin(self, fd: int) -> None:
        """Put a socket with the first request in the place of the device `fd`.

        The kernel has the request ready as soon as it has the mount. Raises OSError, and leaves
        everything as it is, where there is no mount any more.
        """
        device = os.dup(fd)
        try:
            request = os.read(device, _LARGEST)
        except OSError:
            os.close(device)
            raise
        self._device = device
        self._keeps_links = bool(_flags(request, _FLAGS_OF_REQUEST) & _CACHE_SYMLINKS)
        self._socket, libfuse = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with libfuse:
            self._socket.send(request)
            os.dup2(libfuse.fileno(), fd, inheritable=False)

    def finish(self, fd: int) -> None:
        """Answer the kernel what libfuse has answered, and put the device in its place again."""
        assert self._socket is not None
        with self._socket:
            answer = bytearray(self._socket.recv(_LARGEST, socket.MSG_DONTWAIT))
        if self._keeps_links and len(answer) >= _FLAGS_OF_ANSWER + _FLAGS.size:
            flags = _flags(answer, _FLAGS_OF_ANSWER) | _CACHE_SYMLINKS
            _FLAGS.pack_into(answer, _FLAGS_OF_ANSWER, flags)
        try:
            os.write(self._device, answer)
        finally:
            os.dup2(self._device, fd, inheritable=False)
            os.close(self._device)


def _flags(message: bytes | bytearray, place: int) -> int:
    """The flags at a place of a message; none where it is an error, which is shorter."""
    if len(message) < place + _FLAGS.size:
        return 0
    flags: int = _FLAGS.unpack_from(message, place)[0]
    return flags

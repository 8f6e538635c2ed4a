"""Why FUSE mounts fail on a machine, in words that help."""

import os
import stat
from typing import Final

DEVICE: Final = "/dev/fuse"
_NUMBER: Final = os.makedev(10, 229)  # Documentation/admin-guide/devices.txt of the kernel


def missing() -> str | None:
    """Return what FUSE lacks here and what to do about it, None where nothing is seen to lack."""
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return (
            f"there is no {DEVICE}: load the kernel's fuse module (modprobe fuse), or "
            "give the container the device (--device /dev/fuse)"
        )
    except PermissionError:
        return f"{DEVICE} may not be opened by this user: have its mode set to 0666"
    except OSError as error:
        return f"{DEVICE} can't be opened ({error.strerror}): load the kernel's fuse module"
    facts = os.fstat(descriptor)
    os.close(descriptor)
    if not stat.S_ISCHR(facts.st_mode) or facts.st_rdev != _NUMBER:
        return f"{DEVICE} is not the FUSE device: make it anew (mknod {DEVICE} c 10 229)"
    return None

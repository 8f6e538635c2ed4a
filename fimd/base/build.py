"""What FlatImage's users know as the build's facts: FIM_VERSION and its like, and `fim-version`."""

import os
import time
from typing import Final

from fimd import __version__

VERSION: Final = f"v{__version__}"
COMMIT: Final = "source"
"""The commit that was built; a package's build writes it here. One alphanumeric word."""
DISTRIBUTION: Final = "BLUEPRINT"
"""FlatImage's word for a base without a package manager of its own choice."""


def timestamp() -> str:
    """Return when this installation was made, as YYYYMMDDHHMMSS in local time."""
    made = os.stat(__file__).st_mtime
    return time.strftime("%Y%m%d%H%M%S", time.localtime(made))

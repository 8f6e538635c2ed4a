import errno
import logging
import os

import pytest

from fimd.dwarfs.fuse import _answer_came_too_late


@pytest.mark.parametrize(("code", "late"), [(errno.ENOENT, True), (errno.EIO, False)])
def test_an_answer_that_nobody_waits_for_is_no_error(code: int, late: bool) -> None:
    # as pyfuse3 logs it, handlers.pxi
    text, reason = "fuse_release(): fuse_reply_* failed with %s", os.strerror(code)
    record = logging.LogRecord("pyfuse3", logging.ERROR, "", 0, text, (reason,), None)
    assert _answer_came_too_late(record) is late

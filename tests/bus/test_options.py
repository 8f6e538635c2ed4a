"""What methods are given beside their own arguments, and paths."""

import pytest

from fimd.base.errors import InvalidArgumentError
from fimd.bus.options import decode_path


def test_a_path_may_end_as_in_c_and_holds_no_other_nul() -> None:
    assert decode_path(b"/a/\xff") == decode_path(b"/a/\xff\0") == "/a/\udcff"
    for value in (b"/a\0b", b"/a\0\0", b"\0/a"):
        with pytest.raises(InvalidArgumentError, match="there is a NUL byte in it"):
            decode_path(value)

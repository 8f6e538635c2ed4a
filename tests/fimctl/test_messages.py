"""Messages in FlatImage's form, each on its stream."""

import re

import pytest

from fimctl import messages
from fimctl.errors import ClientError, WordsError

LINE = re.compile(r"([DIWEC])::test_messages\.py::\d+::(.*)\n")


def lines(output: str) -> list[tuple[str, str]]:
    found = LINE.findall(output)
    assert "".join(match[0] for match in LINE.finditer(output)) == output
    return found


def test_what_is_said_and_where(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for debugging in ("0", "yes", "1"):
        monkeypatch.setenv("FIM_DEBUG", debugging)
        messages.debug("hidden")
        messages.info("in\nformation")
        messages.warning("warned")
        messages.error("failed")
        output, errors = capfd.readouterr()
        expected = [("I", "information")]
        if debugging == "1":
            expected.insert(0, ("D", "hidden"))
        assert lines(output) == expected
        assert lines(errors) == [("W", "warned"), ("E", "failed")]


def fail(error: ClientError) -> ClientError:
    try:
        raise error
    except ClientError as raised:
        return raised


def test_an_error_is_told_with_what_failed_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    last = "The program exited with an error"
    for error, expected in (
        (WordsError("bad"), ["bad", "Could not parse arguments", last]),
        (ClientError("bad", context="Failed to do it"), ["bad", "Failed to do it", last]),
        (ClientError("bad"), ["bad", last]),
    ):
        messages.report(fail(error))
        output, errors = capfd.readouterr()
        assert output == ""
        assert lines(errors) == [("E", text) for text in expected]


def test_a_program_that_did_not_start_is_told_in_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    messages.report(fail(ClientError("bad")), brief=True)
    assert lines(capfd.readouterr().err) == [("C", "bad")]

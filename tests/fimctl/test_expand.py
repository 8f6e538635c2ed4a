"""FIM_LAYERS is the caller's own word, and expands as a shell does it, with commands."""

from pathlib import Path

import pytest

from fimctl.errors import ClientError
from fimctl.expand import expand_own

VARIABLES = {"HOME": "/home/me", "A": "a b", "PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$A:~/x", "a b:/home/me/x"),
        ("$(echo hi)", "hi"),
        ("x $(printf '%s)' a) y", "x a) y"),
        ("`echo hi`", "hi"),
        ("$(echo $A; echo b)", "a b\nb"),
        ("$(false)", ""),
        ("$(echo $(echo deep))", "deep"),
        ("${UNKNOWN:-else $A}", "else a b"),
        ("${A#a }", "b"),
        ("$((1 + 2))", "3"),
        ('"$(echo "a  b")"', "a  b"),
        ("'$A'$(echo \"it's\")", "$Ait's"),
        ("\udcff$(echo x)", "\udcffx"),
        ("${A!}", "${A!}"),
        ("$(if)", "$(if)"),
    ],
)
def test_what_it_expands_to(text: str, expanded: str) -> None:
    assert expand_own(text, VARIABLES) == expanded


def test_a_command_cannot_end_the_quotes_around_it(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for text in (f'${{A:-"}}; touch {trap}; "', f"'; touch {trap}; '$A", f'"; touch {trap}; "$A'):
        expand_own(text, VARIABLES)
    expand_own("$VALUE", {**VARIABLES, "VALUE": f"$(touch {trap})"})
    expand_own('"$(echo "$VALUE")"', {**VARIABLES, "VALUE": f'$(touch {trap})"; touch {trap}'})
    assert not trap.exists()


def test_a_command_sees_the_variables_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "the process's own")
    assert expand_own("$(echo $A)", VARIABLES) == "a b"


def test_a_command_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fimctl.expand._SECONDS", 0.1)
    with pytest.raises(ClientError, match=r"\$\(sleep 5\) took more than 0.1 s"):
        expand_own("$(sleep 5)", VARIABLES)

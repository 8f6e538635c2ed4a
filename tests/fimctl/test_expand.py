"""Stored values expand as a shell does it, and stay whole."""

import os
from pathlib import Path

import pytest

from fimctl.errors import ClientError
from fimctl.expand import expand, expand_plan, expand_variables

VARIABLES = {"HOME": "/home/me", "A": "a b", "B": "*", "EMPTY": "", "PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("plain words  stay", "plain words  stay"),
        ("$A", "a b"),
        ("x$A.y", "xa b.y"),
        ("${A}y", "a by"),
        ("$UNKNOWN$EMPTY", ""),
        ("$B", "*"),
        ("~", "/home/me"),
        ("~/x", "/home/me/x"),
        ("a~", "a~"),
        ("/x:~/y", "/x:/home/me/y"),
        ("x ~", "x /home/me"),
        ("'$A'", "$A"),
        ('"$A"', "a b"),
        ("'~'", "~"),
        ('"it\'s $A"', "it's a b"),
        (r"\$A", "$A"),
        (r"a\ b", "a b"),
        (r'"\$A \x \""', r'$A \x "'),
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
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("100%", "100%"),
        ("https://x/?q=1", "https://x/?q=1"),
        ("é $A", "é a b"),
        ("\udcff$A", "\udcffa b"),
    ],
)
def test_what_a_text_expands_to(text: str, expanded: str) -> None:
    assert expand(text, VARIABLES) == expanded


@pytest.mark.parametrize(
    "text",
    [
        r"[app] \W > ",
        "$A > $B",
        "a; $A",
        "$A & b",
        "$A | b",
        "{$A}",
        "($A)",
        "$A\nb",
        "'open $A",
        '"open $A',
        "$(open",
        "${open",
        "`open",
        "$A\\",
        "${A!}",
        "$(if)",
    ],
)
def test_what_a_shell_would_refuse_stays_as_it_is(text: str) -> None:
    assert expand(text, VARIABLES) == text


def test_a_command_cannot_end_the_quotes_around_it(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for text in (f'${{A:-"}}; touch {trap}; "', f"'; touch {trap}; '$A", f'"; touch {trap}; "$A'):
        expand(text, VARIABLES)
    expand("$VALUE", {**VARIABLES, "VALUE": f"$(touch {trap})"})
    expand('"$(echo "$VALUE")"', {**VARIABLES, "VALUE": f'$(touch {trap})"; touch {trap}'})
    assert not trap.exists()


def test_a_command_sees_the_variables_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "the process's own")
    assert expand("$(echo $A)", VARIABLES) == "a b"


def test_a_command_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fimctl.expand._SECONDS", 0.1)
    with pytest.raises(ClientError, match=r"\$\(sleep 5\) took more than 0.1 s"):
        expand("$(sleep 5)", VARIABLES)


def test_a_pattern_is_the_first_name_that_it_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b1", "a2", "a1", "*x"):
        (tmp_path / name).touch()
    assert expand("[ab]?", VARIABLES) == "a1"
    assert expand(f"{tmp_path}/b*", VARIABLES) == f"{tmp_path}/b1"
    assert expand("x a* y", VARIABLES) == "x a1 y"
    assert expand("'*'?", VARIABLES) == "*x"
    assert expand("'a*'", VARIABLES) == "a*"
    assert expand("nothing*", VARIABLES) == "nothing*"


def test_keys_expand_and_prompts_do_not() -> None:
    stored = {"$(echo $A)": "x", "PS1": r"\u@\h $A", "C": r"\u$A"}
    expanded = list(expand_variables(stored, VARIABLES))
    assert expanded == [("a b", "x"), ("PS1", r"\u@\h $A"), ("C", "ua b")]


def test_a_plan_expands_what_it_names_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/caller")
    monkeypatch.setenv("FOO", "caller")
    environment = {b"FOO": b"stored", b"HOME": b"/root", b"FIM_PID": b"7", b"PATH": b"/bin"}
    details = {
        "expand-argv": ("au", [1]),
        "expand-environment": ("aay", [b"X=$FOO $FIM_PID", b"HOME=$FOO", b"$NONE=x", b"N\xff=~"]),
    }
    assert expand_plan([b"$FOO", b"$HOME/x", b"$FOO"], environment, details) == [
        *(b"$FOO", b"/home/caller/x", b"$FOO")
    ]
    assert environment == {
        b"FOO": b"stored",
        b"HOME": b"/root",
        b"FIM_PID": b"7",
        b"PATH": b"/bin",
        b"X": b"caller 7",
        b"N\xff": b"/home/caller",
    }


def test_an_identity_is_expanded_in_passwd_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASE", "/b:a/s/e")
    passwd = tmp_path / "passwd"
    passwd.write_text("me:x:1000:100:me:$BASE/home:/bin/sh\n")
    environment = {
        b"HOME": b"$BASE/home",
        b"USER": b"me",
        b"SHELL": b"/bin/sh",
        b"FIM_DIR_INSTANCE": b"/nowhere",
    }
    expand_plan([], environment, {"expand-identity": ("ay", os.fsencode(passwd))})
    assert environment[b"HOME"] == b"/b:a/s/e/home"
    assert passwd.read_text() == "me:x:1000:100:me:/ba/s/e/home:/bin/sh\n"

"""Stored words expand by the caller's variables, stay whole, and never run a command outside."""

import subprocess
from pathlib import Path

import pytest

from fimd.launch.expansion import Word, expand, expand_value, is_name, quoted

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
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("100%", "100%"),
        ("https://x/?q=1", "https://x/?q=1"),
        ("é $A", "é a b"),
        ("\udcff$A", "\udcffa b"),
    ],
)
def test_what_a_word_expands_to(text: str, expanded: str) -> None:
    assert expand(text, VARIABLES) == Word(expanded)


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
    ],
)
def test_what_a_shell_would_refuse_stays_as_it_is(text: str) -> None:
    assert expand(text, VARIABLES) == Word(text)


def test_a_pattern_stays_as_it_is_whatever_files_the_host_has() -> None:
    assert expand("/et[c]/* $A", VARIABLES) == Word("/et[c]/* a b")


@pytest.mark.parametrize(
    ("text", "assigned"),
    [
        ("$(echo hi)", "hi"),
        ("x $(printf '%s)' a) $A", "x a) a b"),
        ("`echo hi` ~", "hi /home/me"),
        ("${UNKNOWN:-else $(echo x)}", "else x"),
        ("$((1 + 2))", "3"),
        ('"$(echo "a  b")" \'$(no)\'', "a  b $(no)"),
    ],
)
def test_what_takes_a_shell_is_left_for_one_to_assign(
    text: str, assigned: str, tmp_path: Path
) -> None:
    word = expand(text, VARIABLES)
    assert word.code
    script = f'x={word.code}; printf %s "$x"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == assigned


@pytest.mark.parametrize(
    "code", ["$(touch {})", "`touch {}`", "${{X:-$(touch {})}}", "$A$(touch {})"]
)
def test_no_command_is_run_by_expanding(code: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    word = expand(code.format(trap), VARIABLES)
    assert word.code
    assert not expand("$VALUE", {"VALUE": code.format(trap)}).code
    assert not trap.exists()


def test_prompts_are_a_shells_own_affair() -> None:
    assert expand_value("PS1", r"\u@\h $A $(x)", VARIABLES) == Word(r"\u@\h $A $(x)")
    assert expand_value("C", r"\u$A", VARIABLES) == Word("ua b")


def test_what_a_shell_has_a_variable_for() -> None:
    assert [is_name(text) for text in ("A1", "_", "", "1A", "a-b", "$(x)", "é")] == [
        *(True, True, False, False, False, False, False)
    ]
    assert quoted("it's") == "'it'\\''s'"

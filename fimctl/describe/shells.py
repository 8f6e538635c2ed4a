"""Completions of fimctl for bash, zsh and fish.

They know the commands, the options and the words to choose from; everything else is a file name.
"""

import re
from collections.abc import Iterator

from fimctl.describe.tree import Argument, Command

_NOTE = "Made by 'fimctl describe {}' of fimctl's own parser."


def bash(root: Command) -> str:
    """Return a completion script for bash."""
    commands = list(root.walk())
    below = "|".join(_quoted(" ".join(command.words)) for command in commands[1:])
    cases = "\n".join(
        f"\t{_quoted(' '.join(command.words))}) words={_quoted(' '.join(_words(command)))}"
        f"{'' if command.commands else ' files=1'} ;;"
        for command in commands
    )
    return f"""\
# {_NOTE.format("fimctl.bash")}
_fimctl() {{
\tlocal current=${{COMP_WORDS[COMP_CWORD]}} command={root.words[0]} words= files= i
\tfor ((i = 1; i < COMP_CWORD; i++)); do
\t\tcase "$command ${{COMP_WORDS[i]}}" in
\t\t{below}) command+=" ${{COMP_WORDS[i]}}" ;;
\t\tesac
\tdone
\tcase $command in
{cases}
\tesac
\tmapfile -t COMPREPLY < <(
\t\tcompgen -W "$words" -- "$current"
\t\t[[ -n $files ]] && compgen -f -- "$current"
\t)
}}
complete -o filenames -F _fimctl {root.words[0]}
"""


def zsh(root: Command) -> str:
    """Return a completion script for zsh."""
    commands = list(root.walk())
    below = "|".join(_quoted(" ".join(command.words)) for command in commands[1:])
    cases = []
    for command in commands:
        words: list[str] = []
        options: list[str] = []
        for word, text in _texts(command):
            (options if word.startswith("-") else words).append(_quoted(f"{word}:{text}"))
        files = "" if command.commands else " files=1"
        cases.append(
            f"\t({_quoted(' '.join(command.words))}) "
            f"offered=({' '.join(words)}) options=({' '.join(options)}){files} ;;"
        )
    listed = "\n".join(cases)
    return f"""\
#compdef {root.words[0]}
# {_NOTE.format("_fimctl")}
_fimctl() {{
\tlocal command={root.words[0]} i files found=1
\tlocal -a offered options
\tfor i in "${{(@)words[2,CURRENT-1]}}"; do
\t\tcase "$command $i" in
\t\t({below}) command+=" $i" ;;
\t\tesac
\tdone
\tcase $command in
{listed}
\tesac
\t_describe command offered && found=0
\t_describe -o option options && found=0
\t[[ -n $files ]] && _files && found=0
\treturn found
}}
_fimctl "$@"
"""


def fish(root: Command) -> str:
    """Return a completion script for fish."""
    program = root.words[0]
    lines = [
        f"# {_NOTE.format('fimctl.fish')}",
        "function __fimctl_at",
        "    set -l given (commandline -opc)[2..]",
        "    set -l wanted $argv[2..]",
        "    test (count $given) -ge (count $wanted); or return 1",
        "    for i in (seq (count $wanted))",
        "        test $given[$i] = $wanted[$i]; or return 1",
        "    end",
        "    test $argv[1] = any; or test (count $given) -eq (count $wanted)",
        "end",
        f"complete -c {program} -n '__fimctl_at exactly' -f",
    ]
    for command in root.walk():
        path = "".join(f" {word}" for word in command.words[1:])
        for sub in command.commands:
            start = f"complete -c {program} -n '__fimctl_at exactly{path}' -f"
            lines += [f"{start} -a {sub.words[-1]} -d {_quoted(sub.summary)}"]
        for argument in command.arguments:
            lines += _fish_argument(program, path, argument)
    return "\n".join(lines) + "\n"


def _fish_argument(program: str, path: str, argument: Argument) -> Iterator[str]:
    start = f"complete -c {program} -n '__fimctl_at any{path}'"
    if not argument.flags:
        if argument.choices:
            yield f"{start} -a {_quoted(' '.join(argument.choices))}"
        return
    flags = "".join(
        f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}" for flag in argument.flags
    )
    value = " -r" if argument.metavar else ""
    if argument.choices:
        value += f" -a {_quoted(' '.join(argument.choices))}"
    yield f"{start}{flags}{value} -d {_quoted(argument.help)}"


def _texts(command: Command) -> Iterator[tuple[str, str]]:
    """Yield each word that may come next, with what it means."""
    for sub in command.commands:
        yield sub.words[-1], _plain(sub.summary)
    for argument in command.arguments:
        for word in argument.flags or argument.choices:
            yield word, _plain(argument.help)


def _words(command: Command) -> Iterator[str]:
    return (word for word, _ in _texts(command))


def _plain(text: str) -> str:
    return re.sub(r"[\[\]]", "", text)


def _quoted(text: str) -> str:
    return "'{}'".format(text.replace("'", "'\\''"))

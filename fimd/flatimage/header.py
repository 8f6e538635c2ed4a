"""The shell script at the start of an image of ours: it hands the image over to fimctl.

It runs under any POSIX sh and starts no process of its own on the way. Its first line ends in a
hyphen so that sh takes an image whose name begins with one for a file and not for options. It is
padded with newlines to the size that it states, and sh never gets past the last `exit`.
"""

from typing import Final

SIZE: Final = 4096

_SCRIPT: Final = """\
#!/bin/sh -
# A FlatImage: a root filesystem in one executable file. fimctl runs it and says more about it:
# fimctl --help. The reserved space begins at this offset, the first layer 4 MiB after it.
FIM_RESERVED_OFFSET={size}

if [ -n "${{FIM_MAIN_OFFSET+set}}" ]; then
	echo "$FIM_RESERVED_OFFSET"
	exit 0
fi

# Where this file is: sh gives its name as it was called, or as it was found on PATH.
image=$0
case $image in
*/*) ;;
*)
	image=./$0
	rest=$PATH:
	while [ ! -f "$image" ] && [ -n "$rest" ]; do
		folder=${{rest%%:*}}
		rest=${{rest#*:}}
		image=${{folder:-.}}/$0
	done
	;;
esac

say() {{ printf '%s: %s\\n' "$image" "$1" >&2; }}

if [ -n "${{FIMCTL-}}" ]; then
	if command -v "$FIMCTL" >/dev/null 2>&1; then
		exec "$FIMCTL" app "$image" "$@"
	fi
	say "FIMCTL is '$FIMCTL', which is no program that can be run."
	exit 125
fi
if command -v fimctl >/dev/null 2>&1; then
	exec fimctl app "$image" "$@"
fi
for fimctl in "${{HOME-}}/.local/bin/fimctl" /usr/local/bin/fimctl /usr/bin/fimctl; do
	if [ -x "$fimctl" ]; then
		exec "$fimctl" app "$image" "$@"
	fi
done
say "running it takes fimctl, which is not here: install fimd, or set FIMCTL to its path."
exit 125
"""


def header() -> bytes:
    """The script, padded to exactly SIZE bytes, which is also where the reserved space begins."""
    script = _SCRIPT.format(size=SIZE).encode()
    assert len(script) <= SIZE
    return script.ljust(SIZE, b"\n")

"""`fimctl`: the client. The path of `fimctl app`, which every image takes, is kept short."""

import os
import sys

from fimctl.errors import ClientError


def main() -> int:
    """Do what the command line says; returns the exit code."""
    arguments = sys.argv[1:]
    if None in {sys.stdin, sys.stdout, sys.stderr}:
        from fimd.base.streams import fill  # noqa: PLC0415 - few callers close them

        fill(inheritable=False)
    try:
        os.getcwdb()
    except OSError:  # it was removed, or can't be seen
        os.chdir("/")
    try:
        if arguments[:1] == ["app"] and len(arguments) > 1 and arguments[1] != "--help":
            from fimctl.image_words import app  # noqa: PLC0415 - each path imports its own

            return app(arguments[1], arguments[2:])
        from fimctl.cli import run  # noqa: PLC0415

        return run(arguments)
    except ClientError as error:
        from fimd.base.texts import printable  # noqa: PLC0415 - for those who need it

        print(f"fimctl: {printable(str(error))}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more
        return 141


if __name__ == "__main__":
    sys.exit(main())

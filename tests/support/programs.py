"""A machine on which some programs are not installed."""

from pathlib import Path


def all_but(directory: Path, *missing: str) -> Path:
    """Make a directory for PATH with links to every program but some."""
    directory.mkdir()
    directory.chmod(0o755)
    for place in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir():
            if program.name not in missing and not (directory / program.name).is_symlink():
                (directory / program.name).symlink_to(program)
    return directory

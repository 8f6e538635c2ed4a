"""Placeholder."""


def integrate(image: str, *, notify: bool) -> None:
    """To come."""

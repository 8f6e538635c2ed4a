"""`fim-recipe` of an image, which is not part of this project."""

from fimctl.errors import ClientError


def image_command(_image: str, _words: list[str]) -> int:
    """Say so."""
    raise ClientError(
        "fim-recipe is not part of fimd: install packages by the image's own package manager, "
        "with fim-root, and keep them with 'fim-layer commit'"
    )

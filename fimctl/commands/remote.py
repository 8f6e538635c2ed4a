"""`fim-remote` of an image: the address of recipes, which FlatImage's fim-recipe downloads."""

from fimctl import messages
from fimctl.errors import ClientError, WordsError
from fimctl.stored import read, write
from fimctl.words import operation, refuse_trailing
from fimd.flatimage.reserved import REMOTE


def image_command(image: str, words: list[str]) -> int:
    """Do `fim-remote set <url> | show | clear`."""
    verb, rest = operation(words, "Missing op for 'fim-remote' (<set|show|clear>)")
    if verb not in {"set", "show", "clear"}:
        raise WordsError("Invalid remote operation")
    if verb == "set" and not rest:
        raise WordsError("Missing URL for 'set' operation")
    refuse_trailing("fim-remote", rest[1:] if verb == "set" else rest)
    if verb == "set":
        write(image, REMOTE, rest[0])
        messages.info(f"Set remote URL to '{rest[0]}'")
    elif verb == "clear":
        write(image, REMOTE, None)
        messages.info("Cleared remote URL")
    else:
        url = read(image, REMOTE)
        if url is None:
            raise ClientError("No remote URL configured")
        print(url)
    return 0

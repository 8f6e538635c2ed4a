"""`fimctl perms`, and `fim-perms` of an image: what of the host its programs see."""

from fimctl.flags import Flags
from fimd.flatimage.reserved import PERMISSIONS
from fimd.flatimage.settings import ON_REQUEST, Permission

_FLAGS = Flags(
    command="perms",
    operations="add,del,list,set,clear",
    noun="Permission",
    summary="what of the host an image's programs see",
    description="What of the host an image's programs see and may use.",
    kind=Permission,
    field=PERMISSIONS,
    apart=ON_REQUEST,
)
add_parser, image_command = _FLAGS.add_parser, _FLAGS.image_command

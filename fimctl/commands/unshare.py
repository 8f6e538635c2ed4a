"""`fimctl unshare`, and `fim-unshare` of an image: which namespaces its programs have alone."""

from fimctl.flags import Flags
from fimd.flatimage.reserved import UNSHARE
from fimd.flatimage.settings import Unshare

_FLAGS = Flags(
    command="unshare",
    operations="add,clear,del,list,set",
    noun="Unshare option",
    summary="which namespaces an image does not share with the host",
    description="Which of the kernel's namespaces an image's programs do not share with the host.",
    kind=Unshare,
    field=UNSHARE,
    apart=Unshare(0),
)
add_parser, image_command = _FLAGS.add_parser, _FLAGS.image_command

"""What can be wrong with an image file. Each message names the file and says what to do."""


class ImageError(Exception):
    """An image, or what it is to be made of, cannot be used as asked."""


class NotAnImageError(ImageError):
    """The file is no FlatImage, or none that can be recognised."""


class DamagedImageError(ImageError):
    """The file is a FlatImage, but a part that is needed is missing or makes no sense."""


class ReadOnlyImageError(ImageError):
    """The image has to be changed, and may not be."""


class BusyImageError(ImageError):
    """Another process is changing the image."""


class NotALayerError(ImageError):
    """What is to become a layer is no DwarFS image."""


class SettingsError(ImageError):
    """A setting in the reserved space, or to be put there, is not what it has to be."""


class SettingTooLargeError(SettingsError):
    """A setting does not fit its field in the reserved space."""


class RootfsError(ImageError):
    """The source of a root filesystem cannot be read, or is not safe to unpack."""


class NoSpaceError(ImageError):
    """The disk, or the user's share of it, is full."""


class CancelledError(ImageError):
    """The caller asked to stop; everything is as it was before."""

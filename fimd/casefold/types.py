"""The types of what pyfuse3 passes; Debian 12's 3.2 does not have them where programs run."""

try:
    from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT, XAttrNameT
except ImportError:
    FileHandleT = FlagT = InodeT = ModeT = int
    FileNameT = XAttrNameT = bytes

__all__ = ["FileHandleT", "FileNameT", "FlagT", "InodeT", "ModeT", "XAttrNameT"]

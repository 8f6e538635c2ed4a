"""An image in the desktop's menu: what is written below XDG_DATA_HOME, and removed from there."""

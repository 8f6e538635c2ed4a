"""DwarFS in Python: read, write, verify and serve images, with nothing of the rest of fimd."""

"""The command line client of fimd, and the command line of an image itself."""

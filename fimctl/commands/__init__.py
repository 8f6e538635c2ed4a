"""The commands of fimctl, one file each."""

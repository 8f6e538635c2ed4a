"""Layers for the tests of this folder."""

from tests.support.layers import make_layer

__all__ = ["make_layer"]

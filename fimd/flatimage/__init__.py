"""The FlatImage file: its layout, its settings, its chain of layers. Knows nothing of fimd."""

"""What is known of an image: its facts, its settings, and the catalogue of the registered."""

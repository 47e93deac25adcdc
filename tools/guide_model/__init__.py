"""Makes the built-in model: its corpus, its training, its checkpoint."""

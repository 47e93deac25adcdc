"""Programs that make parts of the repository: the manual, the built-in model. Not installed."""

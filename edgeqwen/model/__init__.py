"""The network: its weights in memory, and the tape that computes it."""

"""Tests of tools/: the guide, the manual, and that both are true."""

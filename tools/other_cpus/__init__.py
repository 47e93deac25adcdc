"""Runs the tests of the kernels for other CPUs than this machine's, emulated where need be.

``make test-arm64`` and ``make test-x86`` call it; ``runs.py`` lists the CPUs.
"""

"""Ours and its peers, side by side on one server: ``make bench``, or ``python -m benchmarks`` in the environment."""

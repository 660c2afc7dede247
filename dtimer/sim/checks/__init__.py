"""Checkers that watch a simulated run. They know the rules from their own book-keeping, not from the machine."""

"""One small process for each peer, which does what it is told in JSON lines. See ``serving`` and ``serving.mjs``."""

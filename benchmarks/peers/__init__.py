"""One small process for each peer, which does what it is told in JSON lines. See ``serving`` and ``serving.mjs``."""

import importlib.util
import sys
from typing import Final

ORJSON: Final = "--no-orjson" not in sys.argv and importlib.util.find_spec("orjson") is not None
"""Python peers write and read JSON by orjson, where their documentation says how."""
if not ORJSON:
    # One of them takes it by itself wherever it is installed. Here, this comes before anything of a peer's is imported.
    sys.modules["orjson"] = None  # type: ignore[assignment]  # so an import fails, as the import system says

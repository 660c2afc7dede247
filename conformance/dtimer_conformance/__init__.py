"""Proof that a backend keeps the rules: its recorded history is replayed through the pure state machine."""

from dtimer_conformance.history import Record, RecordingBackend, perform
from dtimer_conformance.replay import Difference, replay

__all__ = ["Difference", "Record", "RecordingBackend", "perform", "replay"]

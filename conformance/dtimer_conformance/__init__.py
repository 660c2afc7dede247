"""Proof that a backend keeps the rules.

Derive a test class from :class:`BackendSuite`, or run ``dtimer conformance``.
What a backend is asked and answers is recorded, and replayed through the pure state machine.
"""

from dtimer_conformance.features import Feature, SupportsAdvance, SupportsForeignRecords, SupportsForeignSchema
from dtimer_conformance.history import Record, RecordingBackend
from dtimer_conformance.replay import Difference, replay
from dtimer_conformance.suite import BackendSuite, expected_failure

__all__ = [
    "BackendSuite",
    "Difference",
    "Feature",
    "Record",
    "RecordingBackend",
    "SupportsAdvance",
    "SupportsForeignRecords",
    "SupportsForeignSchema",
    "expected_failure",
    "replay",
]

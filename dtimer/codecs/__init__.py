"""From payloads to bytes and back, a module for each codec."""

"""The wire format: commands and replies as bytes, and events as records. Pure."""

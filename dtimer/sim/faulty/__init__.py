"""A faulty world around real timers: many processes, a store, and the way between, all replayed from one integer."""

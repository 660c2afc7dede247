"""Runs for people: as lines of text, and as a page that draws them."""

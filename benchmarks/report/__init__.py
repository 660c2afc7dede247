"""A Result for people: text for the terminal, Markdown for the documentation, a page of plots."""

"""What is measured: a module for each, with a function that takes the Bench and fills in its figures."""

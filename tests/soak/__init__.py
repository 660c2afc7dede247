"""Node processes and a real server under a seeded schedule of faults, judged by what was written down."""

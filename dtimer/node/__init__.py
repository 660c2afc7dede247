"""One process's side: when to claim and how much, decided by a pure schedule, and the asyncio around it."""

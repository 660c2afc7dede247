"""Looking at the events of a namespace: upcoming ones and dead letters."""

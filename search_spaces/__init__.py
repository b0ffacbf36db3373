"""Search spaces: what may be chosen, and how a choice becomes a network and a graph."""

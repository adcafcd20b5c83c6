"""Training a slimmable network with early exits, in torch, and exporting it."""

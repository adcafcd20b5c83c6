"""How many devices a server carries: measured here, and emulated."""

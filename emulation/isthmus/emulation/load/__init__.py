"""How many devices a server carries: the same devices asking, of a real server and in virtual time."""

"""The live page: a small HTTP server within the agent, for whoever looks on; it never keeps a frame waiting."""

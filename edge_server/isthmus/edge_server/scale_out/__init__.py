"""A server as one of several: streams that move on to another, and tails that run on other machines."""

"""Verbs of links between real processes: the relay, a command behind a shaped link, what a back end can keep to."""

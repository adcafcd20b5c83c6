"""The verbs of `isthmus models`."""

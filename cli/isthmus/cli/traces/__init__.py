"""The verbs of `isthmus traces`."""

"""Labelled pictures: folders, archives and the recipes' own sets."""

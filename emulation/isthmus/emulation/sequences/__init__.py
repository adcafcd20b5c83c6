"""Whole clips in the emulator: measured once with a bundle's networks and the tracker's own flow, replayed as streams."""

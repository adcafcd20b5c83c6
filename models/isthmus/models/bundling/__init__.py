"""Measuring a network at every operating point, and writing its bundle."""

"""Detectors trained in two halves, from clips with boxes to their bundle."""

"""Frigate's eyes: its ZMQ detector protocol, answered from a bundle."""

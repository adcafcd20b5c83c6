"""Traces, links and worlds: the same code in virtual and in real time."""

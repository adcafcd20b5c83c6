"""Pruning a trained head, and quantising one to int8."""

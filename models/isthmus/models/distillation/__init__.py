"""A small head and an early exit for somebody's model, learnt from unlabelled pictures."""

"""A small head and an early exit for somebody's model, trained on unlabelled pictures."""

"""A bottleneck injected into somebody's detector, trained on unlabelled pictures."""

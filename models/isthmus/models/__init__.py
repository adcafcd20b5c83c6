"""Train, split, export and ship: bundles, profiles and the networks in them."""

"""Several bundles on one server: what is in the folder, what is loaded, whose turn it is, and how another one comes in."""

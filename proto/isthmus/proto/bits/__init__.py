"""The bits of a layer: symbols packed by static codes, and features as frequencies. Pure."""

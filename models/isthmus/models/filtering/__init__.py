"""Training a neural filter that dismisses frames without anything of interest."""

"""What each ingredient of a training is worth, measured by short runs."""

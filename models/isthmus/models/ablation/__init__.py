"""What each choice in a training is worth, measured by short runs."""

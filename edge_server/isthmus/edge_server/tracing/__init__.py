"""What the server adds to the traces of frames."""

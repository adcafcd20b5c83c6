"""What `isthmus demo` shows."""

"""The servers that a device may turn to: which are tried when, and which one gets the next frame."""

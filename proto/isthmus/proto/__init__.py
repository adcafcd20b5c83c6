"""What both halves must agree on: vocabulary, codec, wire, and the errors they raise."""

"""Where frames come from: sources, the thread that reads them, and the gate that leaves out what has not changed."""

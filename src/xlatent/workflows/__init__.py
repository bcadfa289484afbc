"""Files in, files out: everything that a command does, callable from Python."""

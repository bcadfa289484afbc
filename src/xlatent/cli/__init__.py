"""The command line: it parses, calls one workflow and prints."""

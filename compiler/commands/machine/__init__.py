"""Commands about the machine, and about the command line itself."""

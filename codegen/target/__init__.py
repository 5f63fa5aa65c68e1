"""What a target is, and the machine that this process runs on."""

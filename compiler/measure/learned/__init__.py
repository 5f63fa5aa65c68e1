"""What layers take, foretold from what others of other shapes took on this machine."""

"""What changes an ATen graph: a module each kind of edit."""

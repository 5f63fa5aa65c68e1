"""What kernels are written in: shorthand, codes and steps."""

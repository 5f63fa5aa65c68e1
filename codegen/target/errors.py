"""What is wrong with a target, or with making its kernels."""


class TargetError(Exception):
    """A target that is unknown, or that kernels cannot be built for on this machine."""


class BuildError(Exception):
    """Kernels could not be built: something is missing, or a compiler failed."""

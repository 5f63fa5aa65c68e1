"""The package that makes the CPU's kernels: its name, and the version of it that is installed."""

from qcc.codegen.target.errors import BuildError

TVM = "apache-tvm"


def tvm_version() -> str:
    """The version of TVM that is installed.

    Raises:
        BuildError: none is.
    """
    from importlib.metadata import PackageNotFoundError, version  # loads a reader of mails

    try:
        return version(TVM)
    except PackageNotFoundError as error:
        raise BuildError("TVM is missing: `pip install 'qcc[kernels]'` brings it") from error

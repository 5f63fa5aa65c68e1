"""What `--data` may name beside an `.npz` file: a folder of images, a text, a script."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcc.compiler.calibrate.sources.images import image_feeds, image_files
from qcc.compiler.calibrate.sources.spool import Feed
from qcc.compiler.calibrate.sources.texts import text_feeds
from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Value
from qcc.ir.script import fault_in, run_script

FUNCTION = "calibration"
MODULE = "qcc_calibration"
TEXT, SCRIPT = ".txt", ".py"


@dataclass(frozen=True)
class DataSource:
    """Data that is made of files, a sample at a time.

    Args:
        path: a folder of images, a text with a sample a line, or a script that defines ``calibration()``, which gives
            feeds: mappings of arrays by the names of the model's inputs.
        tokenizer: of a text: its ``tokenizer.json``.
        mean: of images: what is taken off pixels between 0 and 1, for all channels or for each.
        std: of images: what the rest is divided by.
    """

    path: Path
    tokenizer: Path | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    @staticmethod
    def takes(path: Path) -> bool:
        """It is a path of such data, and not of arrays."""
        return path.is_dir() or path.suffix.lower() in (TEXT, SCRIPT)

    @property
    def origin(self) -> str:
        """What a report calls it."""
        if not self.path.is_dir():
            return str(self.path)
        if (tuple(self.mean), tuple(self.std)) == ((0.0,), (1.0,)):
            return f"{self.path}, pixels between 0 and 1"
        shift, scale = (",".join(f"{one:g}" for one in numbers) for numbers in (self.mean, self.std))
        return f"{self.path}, less {shift}, over {scale}"

    def feeds(self, inputs: Sequence[Value]) -> Iterable[Feed]:
        """One feed a sample.

        Raises:
            ModelError: the files are not what they should be, or do not fit the model.
        """
        if self.path.is_dir():
            return image_feeds(image_files(self.path), inputs, self.mean, self.std)
        if not self.path.is_file():
            raise ModelError("Q420", f"no such file: `{self.path}`")
        if self.path.suffix.lower() == TEXT:
            return text_feeds(self.path, inputs, self.tokenizer)
        return _script_feeds(self.path)


def _script_feeds(path: Path) -> Iterator[Feed]:
    function = getattr(run_script(path, MODULE, "Q543"), FUNCTION, None)
    if not callable(function):
        help = f"define `def {FUNCTION}():`, which yields mappings of arrays by the names of inputs"
        raise ModelError("Q543", f"the script `{path}` has no function `{FUNCTION}`", help)
    try:
        yield from function()
    except (Exception, SystemExit) as error:  # whatever a function may raise
        raise ModelError("Q543", f"the script `{path}` fails: {fault_in(error, path)}") from error

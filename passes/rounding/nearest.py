"""Rounding each weight on its own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.search import Clip
from qcc.ir.encoding.tables.lookups import NO_LOOKUPS
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Context, Rounding
from qcc.passes.contract.trust import trusted


@dataclass(frozen=True)
class Nearest(Rounding):
    """Round every weight to the nearest code, with the clipping range searched per block.

    Needs no data. An encoding that is the better for it (`low_rank`, `signs`) is fitted to what calibration saw; where
    that is there, ranges are searched for errors that count by the power of their inputs.

    Args:
        clip: ``mse`` searches the range of least squared error, ``absmax`` covers all weights, ``statsq`` twice their
            mean magnitude.

    Source: OMSE, Choukroun et al. 2019 (arXiv:1902.06822), section 3; StatsQ, Liu et al. 2023 (arXiv:2302.02210),
    section 3.1.
    """

    uses_gram: ClassVar[bool] = False
    by_columns: ClassVar[bool] = True

    clip: Clip = "mse"

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Round to nearest."""
        gram = trusted(weight, matrix, context, 1.0)
        return encode(matrix, encoding, self.clip, gram, context.lookups.get(weight.name, NO_LOOKUPS))

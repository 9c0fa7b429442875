"""Array types that all packages share."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Float32s = npt.NDArray[np.float32]
Logits = npt.NDArray[np.float32]
"""Outputs of a model before they become scores."""
Gold = npt.NDArray[Any]
"""Gold answers of rows, with the type and shape of their target."""

"""What a model says of molecules, and how far each answer can be trusted."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """Answers for n molecules and t targets; NaN, or False, for molecules that cannot be read.

    Attributes:
        readable: bool (n,), whether the SMILES is that of a molecule.
        values: float64 (n, t), calibrated probabilities, or numbers in the unit of the target.
        spread: float64 (n, t), standard deviation over the members of the ensemble, in the unit of
            `values`; 0 with a single member.
        sets: what the label may be at the model's level: for classes bool (n, t, 2), whether 0 and
            whether 1; for numbers float64 (n, t, 2), the ends of an interval. Outside the
            applicability domain, and where calibration molecules are too few, nothing is ruled
            out: both classes, or infinite ends.
        similarity: float32 (n,), Tanimoto similarity to the nearest training molecule.
        nearest: int64 (n,), number of that molecule in `Model.training_smiles`.
        in_domain: bool (n,), whether it is as near as training molecules are to one another: the
            applicability domain.
    """

    readable: Tensor
    values: Tensor
    spread: Tensor
    sets: Tensor
    similarity: Tensor
    nearest: Tensor
    in_domain: Tensor

    def __len__(self) -> int:
        return len(self.readable)

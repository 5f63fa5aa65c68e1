"""Equations of products have one spelling, whatever letters, dots and order their writers took."""

import pytest

from qcc.ir.graph.attributes import Opaque, terms_of

ACCEPTED = {
    ("ibnd,jbnd->bnij", (4, 4)): "abcd,ebcd->bcae",
    ("ij , jk", (2, 2)): "ab,bc->ac",
    ("...d,df->...f", (3, 2)): "abc,cd->abd",
    ("b...d,...df", (4, 3)): "abcd,cde->bcae",
    ("zA,zA->z", (2, 2)): "ab,ab->a",
}


@pytest.mark.parametrize(("given", "wanted"), ACCEPTED.items())
def test_one_spelling(given: tuple[str, tuple[int, ...]], wanted: str) -> None:
    assert terms_of(*given) == wanted


@pytest.mark.parametrize(
    ("equation", "ranks"),
    [
        ("abcd->dcba", (4,)),
        ("ij,jk,kl->il", (2, 2, 2)),
        ("ii,ij->j", (2, 2)),
        ("ij,kl->ik", (2, 2)),
        ("...d,df->...f", (None, 2)),
        ("ij,jk->iz", (2, 2)),
        ("ij,jk->iik", (2, 2)),
    ],
)
def test_others_reject(equation: str, ranks: tuple[int | None, ...]) -> None:
    """One operand or three, a diagonal, a sum of one operand alone, axes of which nobody knows how many there are."""
    with pytest.raises(Opaque):
        terms_of(equation, ranks)


def test_programs_of_torch_speak_the_same() -> None:
    torch = pytest.importorskip("torch")
    from qcc.ir.fx.graph import FxGraph

    class Scores(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
            return torch.einsum("ibnd,jbnd->bnij", a, b)

    program = torch.export.export(Scores(), (torch.randn(3, 2, 4, 5), torch.randn(6, 2, 4, 5)))
    (op,) = FxGraph(program).ops()
    assert (op.kind, op.function, op.attributes) == ("matmul", "einsum", {"terms": "abcd,ebcd->bcae"})
    assert len(op.inputs) == 2

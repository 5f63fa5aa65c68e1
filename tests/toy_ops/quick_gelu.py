"""A toy op: the whole of what a new activation takes."""

from qcc.ir.vocabulary.definition import EpilogueStep, OpDef

QUICK_GELU = OpDef(
    "elementwise",
    "quick_gelu",
    onnx="QuickGelu",
    aten="quick_gelu",
    plain=True,
    steps=(EpilogueStep("quick_gelu", lambda m, v: v * m.logistic(v * 1.702)),),
)

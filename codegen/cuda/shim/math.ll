; What TVM takes from NVIDIA's library of mathematics, of which a kernel needs this alone.
define float @__nv_fmaf(float %a, float %b, float %c) alwaysinline {
  %sum = call float @llvm.fma.f32(float %a, float %b, float %c)
  ret float %sum
}

declare float @llvm.fma.f32(float, float, float)

"""Conversions to and from 16-bit floats for instruction sets that have none.

Where the target has no instruction, LLVM calls compiler-runtime functions for `half` and `bfloat`.
A Python process does not reliably hold them, so they are written here, in integer arithmetic: round
to nearest even, overflow to infinity, NaN stays NaN (quiet, upper payload kept), as the hardware
does. Subnormals are rounded by adding a number whose last bit has the weight of the smallest
subnormal.
"""

from __future__ import annotations

from collections.abc import Iterable

from aicc.target import Target

SYMBOLS = ("__extendhfsf2", "__truncsfhf2", "__truncdfhf2", "__truncsfbf2", "__truncdfbf2")

_TEXT = """
define float @__extendhfsf2(half %h) nounwind {
  %h16 = bitcast half %h to i16
  %bits = zext i16 %h16 to i32
  %sign16 = and i32 %bits, 32768
  %sign = shl i32 %sign16, 16
  %em = and i32 %bits, 32767
  %wide = shl i32 %em, 13
  ; exponent bias 15 -> 127
  %normal = add i32 %wide, 939524096
  %special0 = or i32 %wide, 2139095040
  %is_nan = icmp ugt i32 %em, 31744
  %quiet = select i1 %is_nan, i32 4194304, i32 0
  %special = or i32 %special0, %quiet
  ; a subnormal is its mantissa times 2^-24, exactly
  %mantissa = uitofp i32 %em to float
  %tiny_f = fmul float %mantissa, 0x3E70000000000000
  %tiny = bitcast float %tiny_f to i32
  %is_tiny = icmp ult i32 %em, 1024
  %is_special = icmp uge i32 %em, 31744
  %r0 = select i1 %is_tiny, i32 %tiny, i32 %normal
  %r1 = select i1 %is_special, i32 %special, i32 %r0
  %r2 = or i32 %r1, %sign
  %r = bitcast i32 %r2 to float
  ret float %r
}

define half @__truncsfhf2(float %f) nounwind {
  %bits = bitcast float %f to i32
  %sign32 = lshr i32 %bits, 16
  %sign = and i32 %sign32, 32768
  %abs = and i32 %bits, 2147483647
  ; from 2^-14: exponent bias 127 -> 15, 13 bits rounded away; a carry runs into the exponent
  %rebias = sub i32 %abs, 939524096
  %odd0 = lshr i32 %rebias, 13
  %odd = and i32 %odd0, 1
  %half_ulp = add i32 %rebias, 4095
  %rounded = add i32 %half_ulp, %odd
  %normal = lshr i32 %rounded, 13
  ; below: 0.5 has last bit 2^-24
  %abs_f = bitcast i32 %abs to float
  %aligned_f = fadd float %abs_f, 5.000000e-01
  %aligned = bitcast float %aligned_f to i32
  %tiny = sub i32 %aligned, 1056964608
  %payload0 = lshr i32 %abs, 13
  %payload = and i32 %payload0, 1023
  %nan = or i32 %payload, 32256
  %is_tiny = icmp ult i32 %abs, 947912704
  %is_big = icmp uge i32 %abs, 1199570944
  %is_nan = icmp ugt i32 %abs, 2139095040
  %r0 = select i1 %is_tiny, i32 %tiny, i32 %normal
  %r1 = select i1 %is_big, i32 31744, i32 %r0
  %r2 = select i1 %is_nan, i32 %nan, i32 %r1
  %r3 = or i32 %r2, %sign
  %r4 = trunc i32 %r3 to i16
  %r = bitcast i16 %r4 to half
  ret half %r
}

define half @__truncdfhf2(double %d) nounwind {
  %bits = bitcast double %d to i64
  %sign64 = lshr i64 %bits, 48
  %sign = and i64 %sign64, 32768
  %abs = and i64 %bits, 9223372036854775807
  ; from 2^-14: exponent bias 1023 -> 15, 42 bits rounded away
  %rebias = sub i64 %abs, 4539628424389459968
  %odd0 = lshr i64 %rebias, 42
  %odd = and i64 %odd0, 1
  %half_ulp = add i64 %rebias, 2199023255551
  %rounded = add i64 %half_ulp, %odd
  %normal = lshr i64 %rounded, 42
  ; below: 2^28 has last bit 2^-24
  %abs_d = bitcast i64 %abs to double
  %aligned_d = fadd double %abs_d, 2.684354560e+08
  %aligned = bitcast double %aligned_d to i64
  %tiny = sub i64 %aligned, 4733283208366391296
  %payload0 = lshr i64 %abs, 42
  %payload = and i64 %payload0, 1023
  %nan = or i64 %payload, 32256
  %is_tiny = icmp ult i64 %abs, 4544132024016830464
  %is_big = icmp uge i64 %abs, 4679240012837945344
  %is_nan = icmp ugt i64 %abs, 9218868437227405312
  %r0 = select i1 %is_tiny, i64 %tiny, i64 %normal
  %r1 = select i1 %is_big, i64 31744, i64 %r0
  %r2 = select i1 %is_nan, i64 %nan, i64 %r1
  %r3 = or i64 %r2, %sign
  %r4 = trunc i64 %r3 to i16
  %r = bitcast i16 %r4 to half
  ret half %r
}

define bfloat @__truncsfbf2(float %f) nounwind {
  %bits = bitcast float %f to i32
  %high = lshr i32 %bits, 16
  %odd = and i32 %high, 1
  %half_ulp = add i32 %bits, 32767
  %rounded = add i32 %half_ulp, %odd
  %normal = lshr i32 %rounded, 16
  %nan = or i32 %high, 64
  %is_nan = fcmp uno float %f, 0.000000e+00
  %r0 = select i1 %is_nan, i32 %nan, i32 %normal
  %r1 = trunc i32 %r0 to i16
  %r = bitcast i16 %r1 to bfloat
  ret bfloat %r
}

define bfloat @__truncdfbf2(double %d) nounwind {
  ; rounded to odd first, so that the second rounding sees on which side of a tie the number lies
  %f = fptrunc double %d to float
  %bits = bitcast float %f to i32
  %back = fpext float %f to double
  %inexact = fcmp one double %back, %d
  %abs_back = call double @llvm.fabs.f64(double %back)
  %abs_d = call double @llvm.fabs.f64(double %d)
  %too_big = fcmp ogt double %abs_back, %abs_d
  %down = sext i1 %too_big to i32
  %toward_zero = add i32 %bits, %down
  %sticky = zext i1 %inexact to i32
  %odd_bits = or i32 %toward_zero, %sticky
  %odd = bitcast i32 %odd_bits to float
  %r = call bfloat @__truncsfbf2(float %odd)
  ret bfloat %r
}

declare double @llvm.fabs.f64(double)
"""


def support_objects(objects: Iterable[bytes], target: Target) -> list[bytes]:
    """The object code to link beside `objects`: one object if they name any of `SYMBOLS`, else
    none."""
    names = [name.encode() for name in SYMBOLS]
    if any(name in data for data in objects for name in names):
        from aicc.codegen.jit import compile_object  # brings LLVM

        return [compile_object(_TEXT, target)]
    return []

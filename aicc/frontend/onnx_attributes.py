"""The attributes of the operators of ONNX's own domain, in all opsets up to the newest one known.

onnx has them in its schemas too, with much else: asking for the first one fills a registry of all,
which takes seven megabytes of memory and ten milliseconds.

    table     ::= line*                     what begins with spaces goes on with the line before
    line      ::= operator attribute*
    attribute ::= name ":" kind range?      kind: the field of an AttributeProto
    range     ::= "@" first "-" last?       opsets; without: all that have the operator
"""

from __future__ import annotations

import functools

TABLE = """
Abs consumed_inputs:ints@1-5
Add axis:i@1-6 broadcast:i@1-6 consumed_inputs:ints@1-5
And axis:i@1-6 broadcast:i@1-6
ArgMax axis:i keepdims:i select_last_index:i@12-
ArgMin axis:i keepdims:i select_last_index:i@12-
AveragePool auto_pad:s ceil_mode:i@10- count_include_pad:i@7- dilations:ints@19- kernel_shape:ints
  pads:ints strides:ints
BatchNormalization consumed_inputs:ints@1-5 epsilon:f is_test:i@1-6 momentum:f spatial:i@1-8
  training_mode:i@14-
BitShift direction:s@11-
Cast round_mode:s@24- saturate:i@19- to:s@1-5 to:i@6-
CastLike round_mode:s@24- saturate:i@19-
Ceil consumed_inputs:ints@1-5
Celu alpha:f@12-
Clip consumed_inputs:ints@1-5 max:f@1-10 min:f@1-10
Compress axis:i@9-
Concat axis:i
Constant value:t value_float:f@12-
  value_floats:floats@12- value_int:i@12- value_ints:ints@12- value_string:s@12-
  value_strings:strings@12-
ConstantOfShape value:t@9-
Conv auto_pad:s dilations:ints group:i kernel_shape:ints pads:ints strides:ints
ConvTranspose auto_pad:s dilations:ints group:i kernel_shape:ints output_padding:ints
  output_shape:ints pads:ints strides:ints
CumSum exclusive:i@11- reverse:i@11-
DepthToSpace blocksize:i mode:s@11-
Div axis:i@1-6 broadcast:i@1-6 consumed_inputs:ints@1-5
Dropout consumed_inputs:ints@1-5 is_test:i@1-6 ratio:f@1-11 seed:i@12-
Einsum equation:s@12-
Elu alpha:f consumed_inputs:ints@1-5
Equal axis:i@1-6 broadcast:i@1-6
Exp consumed_inputs:ints@1-5
EyeLike dtype:i@9- k:i@9-
Flatten axis:i
Floor consumed_inputs:ints@1-5
GRU activation_alpha:floats activation_beta:floats activations:strings clip:f direction:s
  hidden_size:i layout:i@14- linear_before_reset:i@3- output_sequence:i@1-6
Gather axis:i
GatherElements axis:i@11-
GatherND batch_dims:i@12-
Gelu approximate:s@20-
Gemm alpha:f beta:f broadcast:i@1-6 transA:i transB:i
GlobalLpPool p:f@1-1 p:i@2-
Greater axis:i@1-6 broadcast:i@1-6
GridSample align_corners:i@16- mode:s@16- padding_mode:s@16-
GroupNormalization epsilon:f@18- num_groups:i@18- stash_type:i@21-
HardSigmoid alpha:f beta:f consumed_inputs:ints@1-5
Hardmax axis:i
If else_branch:g then_branch:g
InstanceNormalization consumed_inputs:ints@1-5 epsilon:f
IsInf detect_negative:i@10- detect_positive:i@10-
LRN alpha:f beta:f bias:f size:i
LSTM activation_alpha:floats activation_beta:floats activations:strings clip:f direction:s
  hidden_size:i input_forget:i layout:i@14- output_sequence:i@1-6
LayerNormalization axis:i@17- epsilon:f@17- stash_type:i@17-
LeakyRelu alpha:f consumed_inputs:ints@1-5
Less axis:i@1-6 broadcast:i@1-6
Log consumed_inputs:ints@1-5
LogSoftmax axis:i
Loop body:g
LpNormalization axis:i p:i
LpPool auto_pad:s ceil_mode:i@18- dilations:ints@18- kernel_shape:ints p:f@1-1 p:i@2- pads:ints
  strides:ints
Max consumed_inputs:ints@1-5
MaxPool auto_pad:s ceil_mode:i@10- dilations:ints@10- kernel_shape:ints pads:ints
  storage_order:i@8- strides:ints
Mean consumed_inputs:ints@1-5
MeanVarianceNormalization axes:ints@9-
Min consumed_inputs:ints@1-5
Mod fmod:i@10-
Mul axis:i@1-6 broadcast:i@1-6 consumed_inputs:ints@1-5
Neg consumed_inputs:ints@1-5
OneHot axis:i@9-
Or axis:i@1-6 broadcast:i@1-6
PRelu consumed_inputs:ints@1-5
Pad mode:s paddings:ints@1-1 pads:ints@2-10 value:f@1-10
Pow axis:i@1-6 broadcast:i@1-6
RMSNormalization axis:i@23- epsilon:f@23- stash_type:i@23-
RNN activation_alpha:floats activation_beta:floats activations:strings clip:f direction:s
  hidden_size:i layout:i@14- output_sequence:i@1-6
Range stash_type:i@27-
Reciprocal consumed_inputs:ints@1-5
ReduceL1 axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
ReduceL2 axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
ReduceLogSum axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
ReduceLogSumExp axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
ReduceMax axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
ReduceMean axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
ReduceMin axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
ReduceProd axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
ReduceSum axes:ints@1-12 keepdims:i noop_with_empty_axes:i@13-
ReduceSumSquare axes:ints@1-17 keepdims:i noop_with_empty_axes:i@18-
Relu consumed_inputs:ints@1-5
Reshape allowzero:i@14- consumed_inputs:ints@1-4 shape:ints@1-4
Resize antialias:i@18- axes:ints@18- coordinate_transformation_mode:s@11- cubic_coeff_a:f@11-
  exclude_outside:i@11- extrapolation_value:f@11- keep_aspect_ratio_policy:s@18- mode:s@10-
  nearest_mode:s@11-
ReverseSequence batch_axis:i@10- time_axis:i@10-
Scan body:g@8- directions:ints@8-8 num_scan_inputs:i@8- scan_input_axes:ints@9-
  scan_input_directions:ints@9- scan_output_axes:ints@9- scan_output_directions:ints@9-
Scatter axis:i@9-
ScatterElements axis:i@11- reduction:s@16-
ScatterND reduction:s@16-
Selu alpha:f consumed_inputs:ints@1-5 gamma:f
Shape end:i@15- start:i@15-
Shrink bias:f@9- lambd:f@9-
Sigmoid consumed_inputs:ints@1-5
Slice axes:ints@1-9 ends:ints@1-9 starts:ints@1-9
Softmax axis:i
SpaceToDepth blocksize:i mode:s@28-
Split axis:i num_outputs:i@18- split:ints@1-12
Sqrt consumed_inputs:ints@1-5
Squeeze axes:ints@1-12
Sub axis:i@1-6 broadcast:i@1-6 consumed_inputs:ints@1-5
Sum consumed_inputs:ints@1-5
Swish alpha:f@24-
Tanh consumed_inputs:ints@1-5
ThresholdedRelu alpha:f@10-
TopK axis:i k:i@1-9 largest:i@11- sorted:i@11-
Transpose perm:ints
Trilu upper:i@14-
Unsqueeze axes:ints@1-12
Upsample height_scale:f@1-6 mode:s scales:floats@7-8 width_scale:f@1-6
Xor axis:i@1-6 broadcast:i@1-6
"""


def attribute_kind(op: str, opset: int, name: str) -> str | None:
    """The kind of an operator's attribute as of an opset; None where it has none of that name, or
    that is not known here."""
    for first, last, kind in _attributes().get((op, name), ()):
        if first <= opset <= last:
            return kind
    return None


@functools.cache
def _attributes() -> dict[tuple[str, str], list[tuple[int, int, str]]]:
    """Operator and attribute -> first opset, last opset and kind of each form that it had."""
    found: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
    for line in TABLE.replace("\n  ", " ").splitlines():
        op, *attributes = line.split() or [""]
        for attribute in attributes:
            form, _, opsets = attribute.partition("@")
            name, _, kind = form.partition(":")
            first, _, last = opsets.partition("-")
            entry = int(first or 1), int(last or 1 << 31), kind
            found.setdefault((op, name), []).append(entry)
    return found

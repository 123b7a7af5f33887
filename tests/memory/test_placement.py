import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicc.memory.placement import Buffer, check_placement, live_peak, place

buffers = st.lists(
    st.builds(
        lambda size, first, length: Buffer(size, first, first + length),
        st.integers(0, 5000),
        st.integers(0, 30),
        st.integers(0, 12),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(buffers, st.sampled_from([1, 16, 64]))
def test_placements_are_valid_and_not_below_the_bound(bs, alignment):
    p = place(bs, alignment)
    check_placement(bs, p.offsets, p.size, alignment)
    assert p.bound <= p.size <= sum(-(-b.size // alignment) * alignment for b in bs)
    per_step = [sum(b.size for b in bs if b.first <= t <= b.last) for t in range(50)]
    assert live_peak(bs) == max(per_step)


def mobile_net_v1():
    """The separable convolutions of MobileNet v1 at 224x224: (side, channels) of each result."""
    sides = [(112, 32), (112, 32), (112, 64), (56, 64), (56, 128), (56, 128), (56, 128)]
    sides += [(28, 128), (28, 256), (28, 256), (28, 256), (14, 256), (14, 512)]
    sides += [(14, 512)] * 10 + [(7, 512), (7, 1024), (7, 1024), (7, 1024), (1, 1024)]
    sides += [(1, 1001), (1, 1001)]
    return [Buffer(4 * s * s * c, i, i + 1) for i, (s, c) in enumerate(sides)]


def test_a_chain_needs_its_largest_pair():
    """4.594 MiB is what Pisarchyk & Lee (arXiv 2001.03288) report for MobileNet v1."""
    bs = mobile_net_v1()
    p = place(bs)
    assert p.method == "size"
    assert p.size == p.bound
    assert round(p.size / 2**20, 3) == 4.594
    assert round(sum(b.size for b in bs) / 2**20, 3) == 19.248


def mobile_net_v2():
    """The bottlenecks of MobileNet v2 at 224x224: expansion, depthwise convolution, projection and,
    where a bottleneck keeps the shape, a sum with its input."""
    results = [(112, 32), (112, 32), (112, 16)]  # (side, channels), each read by the next
    reads = {}  # result: a reader beside the next
    side, channels = 112, 16
    groups = [(24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]
    for wide, repeats, stride in groups:
        for n in range(repeats):
            block = len(results) - 1
            results += [(side, 6 * channels)]
            side //= stride if n == 0 else 1
            results += [(side, 6 * channels), (side, wide)]
            if n > 0:
                results += [(side, wide)]
                reads[block] = len(results) - 1
            channels = wide
    results += [(7, 1280), (1, 1280), (1, 1001), (1, 1001)]
    return [Buffer(4 * s * s * c, i, reads.get(i, i + 1)) for i, (s, c) in enumerate(results)]


def test_sums_with_the_input_of_a_bottleneck_keep_it_alive():
    """5.742 MiB is what Pisarchyk & Lee (arXiv 2001.03288) report for MobileNet v2."""
    bs = mobile_net_v2()
    p = place(bs)
    assert p.method == "size" and p.proven
    assert round(p.size / 2**20, 3) == 5.742
    assert round(sum(b.size for b in bs) / 2**20, 3) == 26.313


def test_a_hole_is_filled_by_the_best_fit():
    # b leaves a hole of 64 and c one of 192 below d; e (64) goes into the small one.
    bs = [
        Buffer(640, 0, 9),
        Buffer(64, 0, 3),
        Buffer(512, 0, 9),
        Buffer(192, 0, 3),
        Buffer(320, 0, 9),
        Buffer(192, 4, 9),
        Buffer(64, 4, 9),
    ]
    p = place(bs)
    check_placement(bs, p.offsets, p.size)
    assert p.size == p.bound == 1728


def test_the_check_sees_overlap_and_misplacement():
    bs = [Buffer(100, 0, 2), Buffer(100, 2, 3)]
    with pytest.raises(ValueError, match="overlap"):
        check_placement(bs, [0, 64], 256)
    with pytest.raises(ValueError, match="outside"):
        check_placement(bs, [0, 192], 256)
    with pytest.raises(ValueError, match="not aligned"):
        check_placement(bs, [0, 100], 256)
    check_placement([Buffer(100, 0, 1), Buffer(100, 2, 3)], [0, 0], 128)


def test_lifetimes_must_not_be_negative():
    with pytest.raises(ValueError, match="lifetime"):
        place([Buffer(4, 3, 2)])

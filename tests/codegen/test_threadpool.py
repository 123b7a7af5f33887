import ctypes
import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pool_kernels import HOST, I64, PTR, Args, Pools

from aicc.codegen.jit import assembly
from aicc.codegen.threadpool import pool_text
from aicc.target import Target


@pytest.fixture(scope="module")
def pools():
    return Pools()


@pytest.fixture(params=[None, 1, 2, 3, 8])
def pool(request, pools):
    made = None if request.param is None else pools.create(request.param)
    yield made
    pools.destroy(made)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 64, 1001])
@pytest.mark.parametrize("grain", [-1, 1, 3, 64, 2**62])
def test_every_iteration_runs_once_in_ranges_of_the_grain(pools, pool, n, grain):
    for _ in range(5):
        counts, ranges = pools.mark(pool, n, grain)
        assert counts[:n].tolist() == [1] * n
        assert counts[n] == 0
        if n:
            assert [b for b, _ in ranges] == [0] + [e for _, e in ranges[:-1]]
            assert ranges[-1][1] == n
            if len(ranges) > 1:
                step = max(grain, 1)
                assert all(b % step == 0 and e - b <= step for b, e in ranges)


def test_negative_sizes_do_nothing(pools, pool):
    counts = np.zeros(1, np.int32)
    args = Args(counts.ctypes.data, None, pool, 0)
    pools.parallel_for(pool, pools.library.address("mark"), ctypes.addressof(args), -5, 1)
    assert counts[0] == 0


@pytest.mark.parametrize("threads", [2, 5])
def test_many_small_loops(pools, threads):
    pool = pools.create(threads)
    counts = np.zeros(37, np.int32)
    args = Args(counts.ctypes.data, None, pool, 0)
    mark = pools.library.address("mark")
    for n, times in ((2, 20000), (5, 20000), (37, 10000)):
        counts[:] = 0
        pools.repeat(pool, mark, ctypes.addressof(args), n, 1, times)
        assert (counts[:n] == times).all()
    pools.destroy(pool)


def test_loops_with_pauses_around_the_spinning_time(pools):
    # Workers fall asleep while the next loop comes: the moment in which a lost wake-up would show.
    pool = pools.create(3)
    counts = np.zeros(3, np.int32)
    args = Args(counts.ctypes.data, None, pool, 20000)
    spin = pools.library.address("spin")
    random = np.random.default_rng(1)
    for wait in random.uniform(20e-6, 120e-6, 2000):
        stop = time.perf_counter() + wait
        while time.perf_counter() < stop:
            pass
        pools.parallel_for(pool, spin, ctypes.addressof(args), 3, 1)
    assert (counts == 2000).all()
    pools.destroy(pool)


def reaches(measure, wanted, seconds=60):
    """Whether a measurement gets above `wanted` in time: a busy machine may need several tries."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if measure() > wanted:
            return True
    return False


@pytest.mark.skipif(HOST.cores < 2, reason="needs two cores")
def test_two_threads_work_at_the_same_time(pools):
    pool = pools.create(2)
    counts = np.zeros(64, np.int32)
    args = Args(counts.ctypes.data, None, None, 200_000)
    spin = pools.library.address("spin")

    def cpu_per_second(pool):
        wall, cpu = time.perf_counter(), time.process_time()
        pools.parallel_for(pool, spin, ctypes.addressof(args), 64, 1)
        return (time.process_time() - cpu) / (time.perf_counter() - wall)

    # Processor time, not speed: other processes may hold a core while this runs.
    assert reaches(lambda: cpu_per_second(pool), 1.3)
    assert min(cpu_per_second(None) for _ in range(3)) < 1.2
    pools.destroy(pool)


@pytest.mark.skipif(HOST.cores < 2, reason="needs two cores")
def test_uneven_work_is_shared(pools):
    # All work lies in the first half, the caller's own part: without stealing only one thread
    # works.
    pool = pools.create(2)
    counts = np.zeros(64, np.int32)
    args = Args(counts.ctypes.data, None, None, 400_000)
    uneven = pools.library.address("uneven")

    calls = 0

    def cpu_per_second():
        nonlocal calls
        calls += 1
        wall, cpu = time.perf_counter(), time.process_time()
        pools.parallel_for(pool, uneven, ctypes.addressof(args), 64, 1)
        return (time.process_time() - cpu) / (time.perf_counter() - wall)

    assert reaches(cpu_per_second, 1.3)
    assert (counts == calls).all()
    pools.destroy(pool)


def test_nested_loops_run_serially_inside(pools, pool):
    rows, width = 23, 11
    counts = np.zeros(rows * width, np.int32)
    args = Args(counts.ctypes.data, None, pool, width)
    nest = pools.library.address("nest")
    for _ in range(200):
        pools.parallel_for(pool, nest, ctypes.addressof(args), rows, 2)
    assert (counts == 200).all()


@pytest.mark.parametrize("n", [-1, 0, 1, 2, 3, 7, 9, 11, 64])
@pytest.mark.parametrize("threads", [None, 1, 2, 3, 8])
def test_few_iterations_that_are_left_over_run_outside(pools, threads, n):
    pool = None if threads is None else pools.create(threads)
    counts, ranges = pools.mark(pool, max(n, 0), 1, nest=True)
    assert counts[: max(n, 0)].tolist() == [1] * max(n, 0)
    left = n % threads if threads and n > 0 else 0
    if left and 2 * left <= threads:
        assert ranges[-1] == (n - left, n)  # one call, which finds the pool free
    elif threads and threads > 1 and n > 1:
        assert len(ranges) == n
    coarse, by_two = pools.mark(pool, max(n, 0), 2, nest=True)
    assert coarse[: max(n, 0)].tolist() == [1] * max(n, 0)
    if threads and n > 2 * threads:
        assert all(begin % 2 == 0 for begin, _ in by_two)
    pools.destroy(pool)


def test_nested_loops_are_shared_where_iterations_are_left_over(pools, pool):
    rows, width = 23, 11
    counts = np.zeros(rows * width, np.int32)
    args = Args(counts.ctypes.data, None, pool, width)
    nest = pools.library.address("nest")
    for _ in range(200):
        pools.parallel_nest(pool, nest, ctypes.addressof(args), rows, 1)
    assert (counts == 200).all()


def test_concurrent_callers(pools):
    pool = pools.create(3)
    times, callers, n = 3000, 4, 17
    results = [np.zeros(n, np.int32) for _ in range(callers)]
    start = threading.Barrier(callers)

    def call(counts):
        args = Args(counts.ctypes.data, None, pool, 0)
        start.wait()
        for _ in range(20):
            mark = pools.library.address("mark")
            pools.repeat(pool, mark, ctypes.addressof(args), n, 2, times // 20)

    threads = [threading.Thread(target=call, args=(counts,)) for counts in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all((counts == times).all() for counts in results)
    pools.destroy(pool)


def test_create_and_destroy_many_times(pools):
    before = threads_of_process()
    for i in range(200):
        pool = pools.create(2 + i % 3)
        if i % 2:
            assert (pools.mark(pool, 9, 1)[0][:9] == 1).all()
        pools.destroy(pool)
    pools.destroy(None)
    # Threads that the test before has asked to end may still be there at the start.
    assert before is None or threads_of_process() <= before


def threads_of_process():
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


def test_zero_threads_is_one(pools):
    pool = pools.create(0)
    assert pools.mark(pool, 9, 1)[1] == [(0, 9)]
    pools.destroy(pool)


def test_quiet_after_a_run(pools):
    pool = pools.create(4)
    counts = np.zeros(64, np.int32)
    args = Args(counts.ctypes.data, None, pool, 1000)
    pools.repeat(pool, pools.library.address("spin"), ctypes.addressof(args), 64, 1, 200)
    cpu = time.process_time()
    time.sleep(1)
    assert time.process_time() - cpu < 0.05
    pools.destroy(pool)


def test_workers_have_deep_stacks(pools):
    pool = pools.create(2)
    # Called from a thread of its own: the stack of the caller is not what is tested.
    threading.stack_size(16 << 20)
    try:
        done = []
        caller = threading.Thread(target=lambda: done.append(pools.mark(pool, 40, 1, "deep")[0]))
        caller.start()
        caller.join(60)
    finally:
        threading.stack_size(0)
    assert (done[0][:40] == 1).all()
    pools.destroy(pool)


def test_threads_hold_the_affinity_of_their_creator(pools):
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("the system has no affinity")
    allowed = os.sched_getaffinity(0)
    before = set(os.listdir("/proc/self/task"))
    try:
        os.sched_setaffinity(0, {min(allowed)})
        pool = pools.create(3)
    finally:
        os.sched_setaffinity(0, allowed)
    made = set(os.listdir("/proc/self/task")) - before
    assert len(made) == 2
    assert all(os.sched_getaffinity(int(thread)) == {min(allowed)} for thread in made)
    # More threads than cores must not hang either.
    assert (pools.mark(pool, 1000, 1)[0][:1000] == 1).all()
    pools.destroy(pool)


@pytest.mark.skipif(HOST.cores < 2, reason="needs two cores")
def test_a_worker_wakes_on_another_core_than_the_caller(pools):
    if not hasattr(os, "sched_setaffinity") or not os.path.isdir("/proc/self/task"):
        pytest.skip("the system has no affinity")
    allowed = os.sched_getaffinity(0)
    before = set(os.listdir("/proc/self/task"))
    pool = pools.create(2)
    (worker,) = (int(t) for t in set(os.listdir("/proc/self/task")) - before)

    def core():
        text = Path(f"/proc/self/task/{worker}/stat").read_text()
        return int(text[text.rindex(")") + 2 :].split()[36])

    def wakes_elsewhere():
        os.sched_setaffinity(worker, {min(allowed)})
        pools.mark(pool, 1000, 1)
        time.sleep(0.02)  # it falls asleep
        assert core() == min(allowed)
        os.sched_setaffinity(worker, allowed)
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pools.mark(pool, 1000, 1)
        return core() != min(allowed)

    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert reaches(wakes_elsewhere, False)
        assert reaches(lambda: os.sched_getaffinity(worker) == allowed, False)
    finally:
        os.sched_setaffinity(0, allowed)
    pools.destroy(pool)


def test_signals_go_to_the_threads_of_python(pools):
    status = "/proc/self/task"
    if not os.path.isdir(status):
        pytest.skip("the system does not tell")
    before = set(os.listdir(status))
    pool = pools.create(2)
    (worker,) = set(os.listdir(status)) - before

    def blocked():
        with open(f"{status}/{worker}/status") as file:
            mask = next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))
        return mask >> (signal.SIGINT - 1) & 1, mask >> (signal.SIGSEGV - 1) & 1

    # The C library blocks all signals until a new thread has begun.
    deadline = time.monotonic() + 10
    while blocked() != (1, 0) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert blocked() == (1, 0)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    pools.destroy(pool)


@pytest.mark.skipif(HOST.arch != "x86_64", reason="sets the mode register of x86")
@pytest.mark.parametrize("threads", [1, 2])
def test_workers_take_over_the_floating_point_mode(pools, threads):
    pool = pools.create(threads)
    n = 4096
    to, values = np.zeros(n, np.float32), np.full(n, 1e-20, np.float32)
    args = Args(to.ctypes.data, values.ctypes.data, None, 0)
    call = ctypes.CFUNCTYPE(None, PTR, PTR, PTR, I64, I64)(pools.library.address("flushing"))
    square = pools.library.address("square")
    for _ in range(20):
        to[:] = 1
        call(pool, square, ctypes.addressof(args), n, 64)
        assert not to.view(np.uint32).any()
        pools.parallel_for(pool, square, ctypes.addressof(args), n, 64)
        assert to.view(np.uint32).all()
    pools.destroy(pool)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("asleep", [False, True])
def test_a_child_after_fork_does_not_hang(pools, asleep):
    pool = pools.create(3)
    counts = np.zeros(64, np.int32)
    args = Args(counts.ctypes.data, None, pool, 100)
    mark, at = pools.library.address("mark"), ctypes.addressof(args)
    pools.repeat(pool, mark, at, 64, 1, 100)
    if asleep:
        time.sleep(0.05)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a hang ends the child with a signal
        pools.repeat(pool, mark, at, 64, 1, 100)
        good = (counts == 200).all()
        pools.destroy(pool)
        fresh = pools.create(2)
        pools.repeat(fresh, mark, at, 64, 1, 100)
        good &= (counts == 300).all()
        pools.destroy(fresh)
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    pools.repeat(pool, mark, at, 64, 1, 100)
    assert (counts == 200).all()
    pools.destroy(pool)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_a_loop_runs_does_not_hang(pools):
    pool = pools.create(2)
    counts = np.zeros(64, np.int32)
    args = Args(counts.ctypes.data, None, pool, 1_000_000)
    spin, mark = pools.library.address("spin"), pools.library.address("mark")
    call = (pool, spin, ctypes.addressof(args), 64, 1)
    caller = threading.Thread(target=pools.parallel_for, args=call)
    caller.start()
    time.sleep(0.002)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        own = np.zeros(64, np.int32)
        own_args = Args(own.ctypes.data, None, pool, 0)
        pools.repeat(pool, mark, ctypes.addressof(own_args), 64, 1, 100)
        pools.destroy(pool)
        os._exit(0 if (own == 100).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    caller.join(60)
    assert (counts == 1).all()
    pools.destroy(pool)


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-macosx14.0.0"])
def test_the_text_compiles_for_aarch64(triple):
    target = dataclasses.replace(Target.from_name("aarch64"), triple=triple)
    lines = assembly(pool_text(target), target).split("\n")
    assert any("fpcr" in line.lower() for line in lines)
    assert any("yield" in line for line in lines)

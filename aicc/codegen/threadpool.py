"""The pool of threads that runs parallel loops, as LLVM text.

    ptr  @aicc_pool_create(i32 threads)
    void @aicc_pool_destroy(ptr pool)
    void @aicc_parallel_for(ptr pool, ptr fn, ptr args, i64 n, i64 grain)
    void @aicc_parallel_nest(ptr pool, ptr fn, ptr args, i64 n, i64 grain)

`fn` is `void fn(ptr args, i64 begin, i64 end)`. `aicc_parallel_for` calls it so that every i in
0..n is in exactly one range; a range starts at a multiple of `grain` and, unless the loop runs
serially, holds at most `grain` iterations. All calls are done, and their writes visible, when it
returns. The loop runs serially, as one call of fn(args, 0, n), if the pool is null or has one
thread, if there is one range, or if the pool is busy: with the loop of another caller, or with the
loop that this call is nested in.

`aicc_parallel_nest` does the same for iterations that have loops to share out themselves. Where
`grain` is 1 and n is a little more than a multiple of the threads, the iterations left over run
one after the other outside of the loop, so that all threads share what each does: the third of
three images takes two threads half of its time. As many as more than half of the threads are
quicker side by side.

How it works. The ranges are split evenly among the participants, so that a core gets the same part
of a tensor in each run; who has finished its part takes ranges of the others. One word, the gate,
tells workers what to do:

    epoch : 32 | participants : 15 | open : 1 | workers inside : 16

The caller writes the loop's description, opens the gate with a new epoch, works, closes it and
waits until nobody is inside. A worker enters by a compare-and-swap on the open gate, so that it
never sees a description that changes. A worker that comes late finds the gate closed: nobody waits
for a thread that is not scheduled. An idle worker spins for `SPIN_NANOSECONDS`, then sleeps on its
own condition variable.

A child after fork has no workers; its loops still end, since the caller takes every range that no
one else does, and neither waking nor destroying touches locks that a lost thread may hold. Workers
block signals (the interpreter's threads handle them), take over the floating-point mode of the
caller, and inherit the affinity of the thread that creates the pool. On Linux, one that sleeps
wakes on another core than the caller's.
"""

from __future__ import annotations

from aicc.codegen.pool_threads import (
    ARGS,
    ASLEEP,
    BUSY,
    END,
    FN,
    GRAIN,
    MODE,
    THREADS,
    N,
    create_text,
    destroy_text,
    part,
    wake_text,
    worker_text,
)
from aicc.target import Target

SYMBOLS = ("aicc_pool_create", "aicc_pool_destroy", "aicc_parallel_for", "aicc_parallel_nest")


def pool_text(target: Target) -> str:
    """The LLVM text of a module that defines `SYMBOLS` for `target` (Linux or macOS, POSIX
    threads)."""
    darwin = "darwin" in target.triple or "macos" in target.triple
    clock_monotonic = 6 if darwin else 1
    sig_setmask = 3 if darwin else 2
    # Faults of generated code itself stay deliverable, so that faulthandler can report them.
    sigill, sigfpe, sigsegv, sigbus = 4, 8, 11, 10 if darwin else 7
    if target.arch == "x86_64":
        pause = "call void @llvm.x86.sse2.pause()"
        get_mode, set_mode = "call void @llvm.x86.sse.stmxcsr", "call void @llvm.x86.sse.ldmxcsr"
        declarations = """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)"""
    else:
        pause = "call void @llvm.aarch64.hint(i32 1)"
        get_mode, set_mode = "call void @get_fpcr", "call void @set_fpcr"
        declarations = """
declare void @llvm.aarch64.hint(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal void @get_fpcr(ptr %to) nounwind alwaysinline {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  store i64 %mode, ptr %to
  ret void
}
define internal void @set_fpcr(ptr %from) nounwind alwaysinline {
  %mode = load i64, ptr %from
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}"""
    return f"""
{_DECLARATIONS}{declarations}
{_HELPERS.format(clock=clock_monotonic)}
{_work_text()}
{worker_text(pause, set_mode, not darwin)}
{wake_text(not darwin)}
{_parallel_for_text(pause, get_mode)}
{_parallel_nest_text()}
{create_text(sig_setmask, (sigill, sigfpe, sigsegv, sigbus))}
{destroy_text()}
"""


_DECLARATIONS = """\
declare i32 @posix_memalign(ptr, i64, i64)
declare void @free(ptr)
declare i32 @getpid()
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i32 @sigfillset(ptr)
declare i32 @sigdelset(ptr, i32)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_mutex_destroy(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_destroy(ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""

_HELPERS = """
define internal i64 @now() nounwind {{
  %ts = alloca [2 x i64]
  call i32 @clock_gettime(i32 {clock}, ptr %ts)
  %seconds = load i64, ptr %ts
  %at = getelementptr i8, ptr %ts, i64 8
  %nanoseconds = load i64, ptr %at
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %nanoseconds
  ret i64 %sum
}}
"""


def _work_text() -> str:
    """Takes ranges until none is left: one's own first, then those of the next participants."""
    return f"""
define internal void @work(ptr %pool, i64 %id, i64 %participants) nounwind {{
entry:
  %fn.at = getelementptr i8, ptr %pool, i64 {FN}
  %args.at = getelementptr i8, ptr %pool, i64 {ARGS}
  %n.at = getelementptr i8, ptr %pool, i64 {N}
  %grain.at = getelementptr i8, ptr %pool, i64 {GRAIN}
  %fn = load ptr, ptr %fn.at
  %args = load ptr, ptr %args.at
  %n = load i64, ptr %n.at
  %grain = load i64, ptr %grain.at
  br label %victim
victim:
  %tried = phi i64 [0, %entry], [%tried.next, %exhausted]
  %sum = add i64 %id, %tried
  %over = icmp uge i64 %sum, %participants
  %wrapped = sub i64 %sum, %participants
  %index = select i1 %over, i64 %wrapped, i64 %sum
  {part("%part", "%index")}
  %end.at = getelementptr i8, ptr %part, i64 {END}
  %end = load i64, ptr %end.at
  br label %look
look:
  %seen = load atomic i64, ptr %part monotonic, align 8
  %some = icmp slt i64 %seen, %end
  br i1 %some, label %take, label %exhausted
take:
  %chunk = atomicrmw add ptr %part, i64 1 monotonic
  %taken = icmp slt i64 %chunk, %end
  br i1 %taken, label %call, label %exhausted
call:
  %begin = mul i64 %chunk, %grain
  %left = sub i64 %n, %begin
  %last = icmp slt i64 %left, %grain
  %count = select i1 %last, i64 %left, i64 %grain
  %stop = add i64 %begin, %count
  call void %fn(ptr %args, i64 %begin, i64 %stop)
  br label %look
exhausted:
  %tried.next = add i64 %tried, 1
  %more = icmp ult i64 %tried.next, %participants
  br i1 %more, label %victim, label %done
done:
  ret void
}}"""


def _parallel_for_text(pause: str, get_mode: str) -> str:
    return f"\n{_claimed()}{_shared_out(get_mode)}{_worked(pause)}"


def _claimed() -> str:
    """How many threads take part: the caller alone, or so many of the pool, which is claimed."""
    return f"""\
define void @aicc_parallel_for(ptr %pool, ptr %fn, ptr %args, i64 %n, i64 %grain) nounwind {{
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %check, label %return
check:
  %low = icmp slt i64 %grain, 1
  %positive = select i1 %low, i64 1, i64 %grain
  %large = icmp sgt i64 %positive, %n
  %step = select i1 %large, i64 %n, i64 %positive
  %single = icmp eq i64 %step, %n
  %none = icmp eq ptr %pool, null
  %alone = or i1 %single, %none
  br i1 %alone, label %serial, label %divide
divide:
  %n.less = sub i64 %n, 1
  %chunks.less = udiv i64 %n.less, %step
  %chunks = add i64 %chunks.less, 1
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  %threads32 = load atomic i32, ptr %threads.at monotonic, align 4
  %threads = zext i32 %threads32 to i64
  %few = icmp ult i64 %chunks, %threads
  %participants = select i1 %few, i64 %chunks, i64 %threads
  %lonely = icmp ult i64 %participants, 2
  %busy.at = getelementptr i8, ptr %pool, i64 {BUSY}
  %busy = load atomic i32, ptr %busy.at monotonic, align 4
  %taken = icmp ne i32 %busy, 0
  %no = or i1 %lonely, %taken
  br i1 %no, label %serial, label %claim
claim:
  %claimed = cmpxchg ptr %busy.at, i32 0, i32 1 acquire monotonic
  %ok = extractvalue {{i32, i1}} %claimed, 1
  br i1 %ok, label %describe, label %serial
serial:
  call void %fn(ptr %args, i64 0, i64 %n)
  br label %return
"""


def _shared_out(get_mode: str) -> str:
    """What the threads have to know, each one's share, the gate's opening, and waking sleepers."""
    return f"""\
describe:
  %fn.at = getelementptr i8, ptr %pool, i64 {FN}
  %args.at = getelementptr i8, ptr %pool, i64 {ARGS}
  %n.at = getelementptr i8, ptr %pool, i64 {N}
  %grain.at = getelementptr i8, ptr %pool, i64 {GRAIN}
  %mode.at = getelementptr i8, ptr %pool, i64 {MODE}
  store ptr %fn, ptr %fn.at
  store ptr %args, ptr %args.at
  store i64 %n, ptr %n.at
  store i64 %step, ptr %grain.at
  {get_mode}(ptr %mode.at)
  %each.part = udiv i64 %chunks, %participants
  %whole = mul i64 %each.part, %participants
  %rest = sub i64 %chunks, %whole
  br label %deal
deal:
  %index = phi i64 [0, %describe], [%index.next, %deal]
  %from = phi i64 [0, %describe], [%to, %deal]
  %longer = icmp ult i64 %index, %rest
  %extra = zext i1 %longer to i64
  %length = add i64 %each.part, %extra
  %to = add i64 %from, %length
  {part("%part", "%index")}
  %end.at = getelementptr i8, ptr %part, i64 {END}
  store i64 %to, ptr %end.at
  store i64 %from, ptr %part
  %index.next = add i64 %index, 1
  %dealing = icmp ult i64 %index.next, %participants
  br i1 %dealing, label %deal, label %open
open:
  %gate.old = load atomic i64, ptr %pool monotonic, align 8
  %epoch.old = lshr i64 %gate.old, 32
  %epoch = add i64 %epoch.old, 1
  %epoch.field = shl i64 %epoch, 32
  %participants.field = shl i64 %participants, 17
  %fields = or i64 %epoch.field, %participants.field
  %gate.new = or i64 %fields, 65536
  %before = atomicrmw xchg ptr %pool, i64 %gate.new seq_cst
  %row = getelementptr i8, ptr %pool, i64 {ASLEEP}
  br label %sleepers
sleepers:
  %id = phi i64 [1, %open], [%id.next, %awake]
  %offset = shl i64 %id, 2
  %asleep.at = getelementptr i8, ptr %row, i64 %offset
  %flag = load atomic i32, ptr %asleep.at seq_cst, align 4
  %asleep = icmp ne i32 %flag, 0
  br i1 %asleep, label %wake, label %awake
wake:
  call void @wake(ptr %pool, i64 %participants)
  br label %work
awake:
  %id.next = add i64 %id, 1
  %more = icmp ult i64 %id.next, %participants
  br i1 %more, label %sleepers, label %work
"""


def _worked(pause: str) -> str:
    """The caller's own share, and waiting for those who are still at work."""
    return f"""\
work:
  call void @work(ptr %pool, i64 0, i64 %participants)
  %gate.last = atomicrmw and ptr %pool, i64 -65537 acq_rel
  %inside.last = and i64 %gate.last, 65535
  %clear = icmp eq i64 %inside.last, 0
  br i1 %clear, label %finish, label %wait
wait:
  %round = phi i32 [0, %work], [%round.next, %again], [%round.next, %yield]
  {pause}
  %gate.now = load atomic i64, ptr %pool acquire, align 8
  %inside = and i64 %gate.now, 65535
  %empty = icmp eq i64 %inside, 0
  br i1 %empty, label %finish, label %again
again:
  %round.next = add i32 %round, 1
  ; A worker that lost its core to another thread may need this one.
  %long = icmp ugt i32 %round.next, 1000
  %turn = and i32 %round.next, 15
  %sixteenth = icmp eq i32 %turn, 0
  %give = and i1 %long, %sixteenth
  br i1 %give, label %yield, label %wait
yield:
  call i32 @sched_yield()
  br label %wait
finish:
  store atomic i32 0, ptr %busy.at release, align 4
  br label %return
return:
  ret void
}}"""


def _parallel_nest_text() -> str:
    return f"""\
define void @aicc_parallel_nest(ptr %pool, ptr %fn, ptr %args, i64 %n, i64 %grain) nounwind {{
entry:
  %none = icmp eq ptr %pool, null
  %coarse = icmp sgt i64 %grain, 1
  %empty = icmp slt i64 %n, 1
  %simple = or i1 %none, %coarse
  %no = or i1 %simple, %empty
  br i1 %no, label %together, label %count
count:
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  %threads32 = load atomic i32, ptr %threads.at monotonic, align 4
  %threads = zext i32 %threads32 to i64
  %rest = urem i64 %n, %threads
  %twice = shl i64 %rest, 1
  %apart = icmp ule i64 %twice, %threads
  %some = icmp ne i64 %rest, 0
  %divided = and i1 %apart, %some
  br i1 %divided, label %divide, label %together
together:
  tail call void @aicc_parallel_for(ptr %pool, ptr %fn, ptr %args, i64 %n, i64 %grain)
  ret void
divide:
  %whole = sub i64 %n, %rest
  call void @aicc_parallel_for(ptr %pool, ptr %fn, ptr %args, i64 %whole, i64 %grain)
  call void %fn(ptr %args, i64 %whole, i64 %n)
  ret void
}}"""

"""The pool of threads that runs parallel loops, as LLVM text.

    ptr  @aicc_pool_create(i32 threads)
    void @aicc_pool_destroy(ptr pool)
    void @aicc_parallel_for(ptr pool, ptr fn, ptr args, i64 n, i64 grain)

`fn` is `void fn(ptr args, i64 begin, i64 end)`. `aicc_parallel_for` calls it so that every i in
0..n is in exactly one range; a range starts at a multiple of `grain` and, unless the loop runs
serially, holds at most `grain` iterations. All calls are done, and their writes visible, when it
returns. The loop runs serially, as one call of fn(args, 0, n), if the pool is null or has one
thread, if there is one range, or if the pool is busy: with the loop of another caller, or with the
loop that this call is nested in.

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
caller, and inherit its affinity from the thread that creates the pool.
"""

from __future__ import annotations

from aicc.codegen.target import Target

SYMBOLS = ("aicc_pool_create", "aicc_pool_destroy", "aicc_parallel_for")
MAX_THREADS = 1024
STACK_BYTES = 8 << 20  # kernels keep tiles on the stack
SPIN_NANOSECONDS = 50_000

# Byte offsets in the pool. What different threads write stands 128 bytes apart: caches fetch lines
# in pairs.
_GATE, _SHUTDOWN = 0, 8
_BUSY = 128
_FN, _ARGS, _N, _GRAIN, _MODE = 256, 264, 272, 280, 288
_THREADS, _PID, _PARTS = 320, 324, 328
_MUTEX = 384
_ASLEEP = 512  # one i32 for each thread, then the parts
# Byte offsets in the part of one thread: the ranges that are its own, then what it sleeps on.
_PART_BYTES = 256
_NEXT, _END = 0, 8
_COND, _HANDLE, _POOL, _ID = 128, 192, 200, 208


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
{declarations}
{_HELPERS.format(clock=clock_monotonic)}
{_work_text()}
{_worker_text(pause, set_mode)}
{_wake_text()}
{_parallel_for_text(pause, get_mode)}
{_create_text(sig_setmask, (sigill, sigfpe, sigsegv, sigbus))}
{_destroy_text()}
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


def _part(result: str, index: str) -> str:
    """Sets `result` to the address of the part of thread `index` (an i64)."""
    return f"""{result}.parts.at = getelementptr i8, ptr %pool, i64 {_PARTS}
  {result}.parts = load ptr, ptr {result}.parts.at
  {result}.offset = mul i64 {index}, {_PART_BYTES}
  {result} = getelementptr i8, ptr {result}.parts, i64 {result}.offset"""


def _work_text() -> str:
    """Takes ranges until none is left: one's own first, then those of the next participants."""
    return f"""
define internal void @work(ptr %pool, i64 %id, i64 %participants) nounwind {{
entry:
  %fn.at = getelementptr i8, ptr %pool, i64 {_FN}
  %args.at = getelementptr i8, ptr %pool, i64 {_ARGS}
  %n.at = getelementptr i8, ptr %pool, i64 {_N}
  %grain.at = getelementptr i8, ptr %pool, i64 {_GRAIN}
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
  {_part("%part", "%index")}
  %end.at = getelementptr i8, ptr %part, i64 {_END}
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


def _worker_text(pause: str, set_mode: str) -> str:
    """The main function of a worker: spin, enter, work, leave; sleep when there was nothing for
    long."""
    return f"""
define internal ptr @worker(ptr %self) nounwind {{
entry:
  %pool.at = getelementptr i8, ptr %self, i64 {_POOL}
  %pool = load ptr, ptr %pool.at
  %id.at = getelementptr i8, ptr %self, i64 {_ID}
  %id = load i64, ptr %id.at
  %shutdown.at = getelementptr i8, ptr %pool, i64 {_SHUTDOWN}
  %mutex = getelementptr i8, ptr %pool, i64 {_MUTEX}
  %cond = getelementptr i8, ptr %self, i64 {_COND}
  %mode.at = getelementptr i8, ptr %pool, i64 {_MODE}
  %asleep.offset = shl i64 %id, 2
  %asleep.row = getelementptr i8, ptr %pool, i64 {_ASLEEP}
  %asleep = getelementptr i8, ptr %asleep.row, i64 %asleep.offset
  %last.at = alloca i64
  store i64 0, ptr %last.at
  br label %awake
awake:
  %start = call i64 @now()
  br label %spin
spin:
  %round = phi i32 [0, %awake], [%round.next, %idle.more], [0, %idle.clock], [%round, %enter]
  %gate = load atomic i64, ptr %pool acquire, align 8
  %last = load i64, ptr %last.at
  %epoch = lshr i64 %gate, 32
  %fresh = icmp ne i64 %epoch, %last
  br i1 %fresh, label %look, label %idle
look:
  %open.bit = and i64 %gate, 65536
  %open = icmp ne i64 %open.bit, 0
  %participants.wide = lshr i64 %gate, 17
  %participants = and i64 %participants.wide, 32767
  %mine = icmp ult i64 %id, %participants
  %may.enter = and i1 %open, %mine
  br i1 %may.enter, label %enter, label %skip
skip:
  store i64 %epoch, ptr %last.at
  br label %idle
enter:
  %inside = add i64 %gate, 1
  %swap = cmpxchg ptr %pool, i64 %gate, i64 %inside acq_rel acquire
  %entered = extractvalue {{i64, i1}} %swap, 1
  br i1 %entered, label %run, label %spin
run:
  store i64 %epoch, ptr %last.at
  {set_mode}(ptr %mode.at)
  call void @work(ptr %pool, i64 %id, i64 %participants)
  %left = atomicrmw sub ptr %pool, i64 1 release
  br label %awake
idle:
  %shutdown = load atomic i32, ptr %shutdown.at monotonic, align 4
  %stop = icmp ne i32 %shutdown, 0
  br i1 %stop, label %exit, label %idle.more
idle.more:
  {pause}
  %round.next = add i32 %round, 1
  %check = icmp uge i32 %round.next, 32
  br i1 %check, label %idle.clock, label %spin
idle.clock:
  %time = call i64 @now()
  %spent = sub i64 %time, %start
  %tired = icmp sgt i64 %spent, {SPIN_NANOSECONDS}
  br i1 %tired, label %sleep, label %spin
sleep:
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %doze
doze:
  ; The flag is up before the gate is read, and the caller opens the gate before it reads the flag:
  ; one of the two sees the other.
  %was = atomicrmw xchg ptr %asleep, i32 1 seq_cst
  %gate2 = load atomic i64, ptr %pool seq_cst, align 8
  %shutdown2 = load atomic i32, ptr %shutdown.at seq_cst, align 4
  %stop2 = icmp ne i32 %shutdown2, 0
  %last2 = load i64, ptr %last.at
  %epoch2 = lshr i64 %gate2, 32
  %fresh2 = icmp ne i64 %epoch2, %last2
  %participants2.wide = lshr i64 %gate2, 17
  %participants2 = and i64 %participants2.wide, 32767
  %mine2 = icmp ult i64 %id, %participants2
  ; A loop that is over already wakes too: the next is likely near.
  %called = and i1 %fresh2, %mine2
  %rise = or i1 %stop2, %called
  br i1 %rise, label %up, label %wait
wait:
  call i32 @pthread_cond_wait(ptr %cond, ptr %mutex)
  br label %doze
up:
  store atomic i32 0, ptr %asleep monotonic, align 4
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %awake
exit:
  ret ptr null
}}"""


def _wake_text() -> str:
    """Wakes the sleepers among the participants; in a child after fork, makes the pool serial
    instead."""
    return f"""
define internal void @wake(ptr %pool, i64 %participants) nounwind noinline {{
entry:
  %pid = call i32 @getpid()
  %pid.at = getelementptr i8, ptr %pool, i64 {_PID}
  %creator = load i32, ptr %pid.at
  %same = icmp eq i32 %pid, %creator
  br i1 %same, label %lock, label %child
child:
  %threads.at = getelementptr i8, ptr %pool, i64 {_THREADS}
  store atomic i32 1, ptr %threads.at monotonic, align 4
  ret void
lock:
  %mutex = getelementptr i8, ptr %pool, i64 {_MUTEX}
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %each
each:
  %id = phi i64 [1, %lock], [%id.next, %next]
  %offset = shl i64 %id, 2
  %row = getelementptr i8, ptr %pool, i64 {_ASLEEP}
  %asleep.at = getelementptr i8, ptr %row, i64 %offset
  %flag = load atomic i32, ptr %asleep.at monotonic, align 4
  %asleep = icmp ne i32 %flag, 0
  br i1 %asleep, label %signal, label %next
signal:
  store atomic i32 0, ptr %asleep.at monotonic, align 4
  {_part("%part", "%id")}
  %cond = getelementptr i8, ptr %part, i64 {_COND}
  call i32 @pthread_cond_signal(ptr %cond)
  br label %next
next:
  %id.next = add i64 %id, 1
  %more = icmp ult i64 %id.next, %participants
  br i1 %more, label %each, label %unlock
unlock:
  call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}}"""


def _parallel_for_text(pause: str, get_mode: str) -> str:
    return f"""
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
  %threads.at = getelementptr i8, ptr %pool, i64 {_THREADS}
  %threads32 = load atomic i32, ptr %threads.at monotonic, align 4
  %threads = zext i32 %threads32 to i64
  %few = icmp ult i64 %chunks, %threads
  %participants = select i1 %few, i64 %chunks, i64 %threads
  %lonely = icmp ult i64 %participants, 2
  %busy.at = getelementptr i8, ptr %pool, i64 {_BUSY}
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
describe:
  %fn.at = getelementptr i8, ptr %pool, i64 {_FN}
  %args.at = getelementptr i8, ptr %pool, i64 {_ARGS}
  %n.at = getelementptr i8, ptr %pool, i64 {_N}
  %grain.at = getelementptr i8, ptr %pool, i64 {_GRAIN}
  %mode.at = getelementptr i8, ptr %pool, i64 {_MODE}
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
  {_part("%part", "%index")}
  %end.at = getelementptr i8, ptr %part, i64 {_END}
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
  %row = getelementptr i8, ptr %pool, i64 {_ASLEEP}
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


def _create_text(sig_setmask: int, faults: tuple[int, ...]) -> str:
    allowed = "\n  ".join(f"call i32 @sigdelset(ptr %signals, i32 {fault})" for fault in faults)
    return f"""
; null if there is no memory; fewer threads than asked for if the system gives no more
define ptr @aicc_pool_create(i32 %wanted) nounwind {{
entry:
  %at = alloca ptr
  %attributes = alloca [128 x i8], align 16
  %signals = alloca [128 x i8], align 16
  %signals.old = alloca [128 x i8], align 16
  %atleast = call i32 @llvm.smax.i32(i32 %wanted, i32 1)
  %threads32 = call i32 @llvm.smin.i32(i32 %atleast, i32 {MAX_THREADS})
  %threads = zext i32 %threads32 to i64
  %flags.raw = mul i64 %threads, 4
  %flags.up = add i64 %flags.raw, 127
  %flags = and i64 %flags.up, -128
  %parts.offset = add i64 %flags, {_ASLEEP}
  %parts.bytes = mul i64 %threads, {_PART_BYTES}
  %bytes = add i64 %parts.offset, %parts.bytes
  %status = call i32 @posix_memalign(ptr %at, i64 128, i64 %bytes)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %nothing, label %fill
nothing:
  ret ptr null
fill:
  %pool = load ptr, ptr %at
  call void @llvm.memset.p0.i64(ptr %pool, i8 0, i64 %bytes, i1 false)
  %parts.at = getelementptr i8, ptr %pool, i64 {_PARTS}
  %parts = getelementptr i8, ptr %pool, i64 %parts.offset
  store ptr %parts, ptr %parts.at
  %pid = call i32 @getpid()
  %pid.at = getelementptr i8, ptr %pool, i64 {_PID}
  store i32 %pid, ptr %pid.at
  %mutex = getelementptr i8, ptr %pool, i64 {_MUTEX}
  call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  call i32 @pthread_attr_init(ptr %attributes)
  call i32 @pthread_attr_setstacksize(ptr %attributes, i64 {STACK_BYTES})
  call i32 @sigfillset(ptr %signals)
  {allowed}
  call i32 @pthread_sigmask(i32 {sig_setmask}, ptr %signals, ptr %signals.old)
  br label %each
each:
  %id = phi i64 [1, %fill], [%id.next, %started]
  %more = icmp ult i64 %id, %threads
  br i1 %more, label %start, label %finish
start:
  {_part("%part", "%id")}
  %cond = getelementptr i8, ptr %part, i64 {_COND}
  call i32 @pthread_cond_init(ptr %cond, ptr null)
  %pool.at = getelementptr i8, ptr %part, i64 {_POOL}
  store ptr %pool, ptr %pool.at
  %id.at = getelementptr i8, ptr %part, i64 {_ID}
  store i64 %id, ptr %id.at
  %handle = getelementptr i8, ptr %part, i64 {_HANDLE}
  %refused = call i32 @pthread_create(ptr %handle, ptr %attributes, ptr @worker, ptr %part)
  %none = icmp ne i32 %refused, 0
  br i1 %none, label %finish, label %started
started:
  %id.next = add i64 %id, 1
  br label %each
finish:
  %count = trunc i64 %id to i32
  %threads.at = getelementptr i8, ptr %pool, i64 {_THREADS}
  store atomic i32 %count, ptr %threads.at monotonic, align 4
  call i32 @pthread_sigmask(i32 {sig_setmask}, ptr %signals.old, ptr null)
  call i32 @pthread_attr_destroy(ptr %attributes)
  ret ptr %pool
}}
declare i32 @llvm.smax.i32(i32, i32)
declare i32 @llvm.smin.i32(i32, i32)"""


def _destroy_text() -> str:
    return f"""
; no loop may run on the pool, now or later; null is allowed
define void @aicc_pool_destroy(ptr %pool) nounwind {{
entry:
  %none = icmp eq ptr %pool, null
  br i1 %none, label %return, label %check
check:
  %pid = call i32 @getpid()
  %pid.at = getelementptr i8, ptr %pool, i64 {_PID}
  %creator = load i32, ptr %pid.at
  %same = icmp eq i32 %pid, %creator
  br i1 %same, label %stop, label %release
stop:
  %threads.at = getelementptr i8, ptr %pool, i64 {_THREADS}
  %threads32 = load atomic i32, ptr %threads.at monotonic, align 4
  %threads = zext i32 %threads32 to i64
  %mutex = getelementptr i8, ptr %pool, i64 {_MUTEX}
  call i32 @pthread_mutex_lock(ptr %mutex)
  %shutdown.at = getelementptr i8, ptr %pool, i64 {_SHUTDOWN}
  store atomic i32 1, ptr %shutdown.at seq_cst, align 4
  br label %signal
signal:
  %a = phi i64 [1, %stop], [%a.next, %signal.one]
  %a.more = icmp ult i64 %a, %threads
  br i1 %a.more, label %signal.one, label %unlock
signal.one:
  {_part("%part.a", "%a")}
  %cond.a = getelementptr i8, ptr %part.a, i64 {_COND}
  call i32 @pthread_cond_signal(ptr %cond.a)
  %a.next = add i64 %a, 1
  br label %signal
unlock:
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %join
join:
  %b = phi i64 [1, %unlock], [%b.next, %join.one]
  %b.more = icmp ult i64 %b, %threads
  br i1 %b.more, label %join.one, label %joined
join.one:
  {_part("%part.b", "%b")}
  %handle.at = getelementptr i8, ptr %part.b, i64 {_HANDLE}
  %handle = load i64, ptr %handle.at
  call i32 @pthread_join(i64 %handle, ptr null)
  %cond.b = getelementptr i8, ptr %part.b, i64 {_COND}
  call i32 @pthread_cond_destroy(ptr %cond.b)
  %b.next = add i64 %b, 1
  br label %join
joined:
  call i32 @pthread_mutex_destroy(ptr %mutex)
  br label %release
release:
  call void @free(ptr %pool)
  br label %return
return:
  ret void
}}"""

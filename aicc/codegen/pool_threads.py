"""The threads of the pool, as LLVM text: its memory, workers, waking, creating, destroying.

`aicc.codegen.threadpool` describes the whole; this is the part that deals with threads and sleep.
"""

from __future__ import annotations

MAX_THREADS = 1024
STACK_BYTES = 8 << 20  # kernels keep tiles on the stack
SPIN_NANOSECONDS = 50_000

# Byte offsets in the pool. What different threads write stands 128 bytes apart: caches fetch lines
# in pairs. The gate is the pool's first word.
SHUTDOWN = 8
BUSY = 128
FN, ARGS, N, GRAIN, MODE = 256, 264, 272, 280, 288
THREADS, PID, PARTS = 320, 324, 328
MUTEX = 384
ASLEEP = 512  # one i32 for each thread, then the parts
# Byte offsets in the part of one thread: the next of the ranges that are its own (the first word)
# and their end, then what it sleeps on.
PART_BYTES = 384
END = 8
COND, HANDLE, POOL, ID = 128, 192, 200, 208
MOVED = 216  # whether it is to wake in fewer places than it may run in
ALLOWED, ALLOWED_BYTES = 256, 128  # the cores that it may run on


def part(result: str, index: str) -> str:
    """Sets `result` to the address of the part of thread `index` (an i64)."""
    return f"""{result}.parts.at = getelementptr i8, ptr %pool, i64 {PARTS}
  {result}.parts = load ptr, ptr {result}.parts.at
  {result}.offset = mul i64 {index}, {PART_BYTES}
  {result} = getelementptr i8, ptr {result}.parts, i64 {result}.offset"""


def worker_text(pause: str, set_mode: str, linux: bool) -> str:
    """The main function of a worker: spin, enter, work, leave; sleep when there was nothing for
    long."""
    return f"\n{_at_work(set_mode)}{_idle(pause, linux)}"


def _at_work(set_mode: str) -> str:
    """Looking at the gate, entering where this worker is wanted, working, leaving."""
    return f"""\
define internal ptr @worker(ptr %self) nounwind {{
entry:
  %pool.at = getelementptr i8, ptr %self, i64 {POOL}
  %pool = load ptr, ptr %pool.at
  %id.at = getelementptr i8, ptr %self, i64 {ID}
  %id = load i64, ptr %id.at
  %shutdown.at = getelementptr i8, ptr %pool, i64 {SHUTDOWN}
  %mutex = getelementptr i8, ptr %pool, i64 {MUTEX}
  %cond = getelementptr i8, ptr %self, i64 {COND}
  %mode.at = getelementptr i8, ptr %pool, i64 {MODE}
  %asleep.offset = shl i64 %id, 2
  %asleep.row = getelementptr i8, ptr %pool, i64 {ASLEEP}
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
"""


def _idle(pause: str, linux: bool) -> str:
    """Spinning while that may pay, then sleeping until somebody wakes the worker."""
    unlocked = _BACK if linux else "br label %awake"
    return f"""\
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
  {unlocked}
exit:
  ret ptr null
}}"""


_BACK = f"""%moved.at = getelementptr i8, ptr %self, i64 {MOVED}
  %moved = load i32, ptr %moved.at
  %away = icmp ne i32 %moved, 0
  br i1 %away, label %back, label %awake
back:
  store i32 0, ptr %moved.at
  %allowed = getelementptr i8, ptr %self, i64 {ALLOWED}
  %me = call i64 @pthread_self()
  call i32 @pthread_setaffinity_np(i64 %me, i64 {ALLOWED_BYTES}, ptr %allowed)
  br label %awake"""
_SEND_AWAY = f"""
define internal void @send_away(ptr %part) nounwind noinline {{
entry:
  %mask = alloca [{ALLOWED_BYTES} x i8], align 16
  %mine = call i32 @sched_getcpu()
  %listed = icmp ult i32 %mine, {8 * ALLOWED_BYTES}
  br i1 %listed, label %look, label %done
look:
  %handle.at = getelementptr i8, ptr %part, i64 {HANDLE}
  %handle = load i64, ptr %handle.at
  %allowed = getelementptr i8, ptr %part, i64 {ALLOWED}
  %unknown = call i32 @pthread_getaffinity_np(i64 %handle, i64 {ALLOWED_BYTES}, ptr %allowed)
  %known = icmp eq i32 %unknown, 0
  br i1 %known, label %leave, label %done
leave:
  call void @llvm.memcpy.p0.p0.i64(ptr %mask, ptr %allowed, i64 {ALLOWED_BYTES}, i1 false)
  %byte = lshr i32 %mine, 3
  %bit = and i32 %mine, 7
  %bits.at = getelementptr i8, ptr %mask, i32 %byte
  %bits = load i8, ptr %bits.at
  %bit8 = trunc i32 %bit to i8
  %one = shl i8 1, %bit8
  %others = xor i8 %one, -1
  %kept = and i8 %bits, %others
  store i8 %kept, ptr %bits.at
  ; This fails where there is no other core.
  %refused = call i32 @pthread_setaffinity_np(i64 %handle, i64 {ALLOWED_BYTES}, ptr %mask)
  %moved = icmp eq i32 %refused, 0
  %moved32 = zext i1 %moved to i32
  %moved.at = getelementptr i8, ptr %part, i64 {MOVED}
  store i32 %moved32, ptr %moved.at
  br label %done
done:
  ret void
}}
declare i32 @sched_getcpu()
declare i64 @pthread_self()
declare i32 @pthread_getaffinity_np(i64, i64, ptr)
declare i32 @pthread_setaffinity_np(i64, i64, ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""


def wake_text(linux: bool) -> str:
    """Wakes the sleepers among the participants; in a child after fork, makes the pool serial
    instead.

    A worker has to wake on another core than the caller's, and may run everywhere again from then
    on: the system may wake it where it is called from, and leave it there for milliseconds, where
    it and the caller only hinder each other."""
    send = "call void @send_away(ptr %part)" if linux else ""
    return f"""{_SEND_AWAY if linux else ""}
define internal void @wake(ptr %pool, i64 %participants) nounwind noinline {{
entry:
  %pid = call i32 @getpid()
  %pid.at = getelementptr i8, ptr %pool, i64 {PID}
  %creator = load i32, ptr %pid.at
  %same = icmp eq i32 %pid, %creator
  br i1 %same, label %lock, label %child
child:
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  store atomic i32 1, ptr %threads.at monotonic, align 4
  ret void
lock:
  %mutex = getelementptr i8, ptr %pool, i64 {MUTEX}
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %each
each:
  %id = phi i64 [1, %lock], [%id.next, %next]
  %offset = shl i64 %id, 2
  %row = getelementptr i8, ptr %pool, i64 {ASLEEP}
  %asleep.at = getelementptr i8, ptr %row, i64 %offset
  %flag = load atomic i32, ptr %asleep.at monotonic, align 4
  %asleep = icmp ne i32 %flag, 0
  br i1 %asleep, label %signal, label %next
signal:
  store atomic i32 0, ptr %asleep.at monotonic, align 4
  {part("%part", "%id")}
  {send}
  %cond = getelementptr i8, ptr %part, i64 {COND}
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


def create_text(sig_setmask: int, faults: tuple[int, ...]) -> str:
    """Starts the threads with all signals blocked but `faults`, on stacks of `STACK_BYTES`."""
    return f"{_ALLOCATED}{_started(sig_setmask, faults)}"


_ALLOCATED = f"""
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
  %parts.offset = add i64 %flags, {ASLEEP}
  %parts.bytes = mul i64 %threads, {PART_BYTES}
  %bytes = add i64 %parts.offset, %parts.bytes
  %status = call i32 @posix_memalign(ptr %at, i64 128, i64 %bytes)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %nothing, label %fill
nothing:
  ret ptr null
fill:
  %pool = load ptr, ptr %at
  call void @llvm.memset.p0.i64(ptr %pool, i8 0, i64 %bytes, i1 false)
  %parts.at = getelementptr i8, ptr %pool, i64 {PARTS}
  %parts = getelementptr i8, ptr %pool, i64 %parts.offset
  store ptr %parts, ptr %parts.at
  %pid = call i32 @getpid()
  %pid.at = getelementptr i8, ptr %pool, i64 {PID}
  store i32 %pid, ptr %pid.at
"""


def _started(sig_setmask: int, faults: tuple[int, ...]) -> str:
    """The rest of `aicc_pool_create`, whose memory is there: threads, one after the other."""
    allowed = "\n  ".join(f"call i32 @sigdelset(ptr %signals, i32 {fault})" for fault in faults)
    return f"""\
  %mutex = getelementptr i8, ptr %pool, i64 {MUTEX}
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
  {part("%part", "%id")}
  %cond = getelementptr i8, ptr %part, i64 {COND}
  call i32 @pthread_cond_init(ptr %cond, ptr null)
  %pool.at = getelementptr i8, ptr %part, i64 {POOL}
  store ptr %pool, ptr %pool.at
  %id.at = getelementptr i8, ptr %part, i64 {ID}
  store i64 %id, ptr %id.at
  %handle = getelementptr i8, ptr %part, i64 {HANDLE}
  %refused = call i32 @pthread_create(ptr %handle, ptr %attributes, ptr @worker, ptr %part)
  %none = icmp ne i32 %refused, 0
  br i1 %none, label %finish, label %started
started:
  %id.next = add i64 %id, 1
  br label %each
finish:
  %count = trunc i64 %id to i32
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  store atomic i32 %count, ptr %threads.at monotonic, align 4
  call i32 @pthread_sigmask(i32 {sig_setmask}, ptr %signals.old, ptr null)
  call i32 @pthread_attr_destroy(ptr %attributes)
  ret ptr %pool
}}
declare i32 @llvm.smax.i32(i32, i32)
declare i32 @llvm.smin.i32(i32, i32)"""


def destroy_text() -> str:
    """Wakes and joins the threads and frees the pool; in a child after fork, only frees it."""
    return f"""
; no loop may run on the pool, now or later; null is allowed
define void @aicc_pool_destroy(ptr %pool) nounwind {{
entry:
  %none = icmp eq ptr %pool, null
  br i1 %none, label %return, label %check
check:
  %pid = call i32 @getpid()
  %pid.at = getelementptr i8, ptr %pool, i64 {PID}
  %creator = load i32, ptr %pid.at
  %same = icmp eq i32 %pid, %creator
  br i1 %same, label %stop, label %release
stop:
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  %threads32 = load atomic i32, ptr %threads.at monotonic, align 4
  %threads = zext i32 %threads32 to i64
  %mutex = getelementptr i8, ptr %pool, i64 {MUTEX}
  call i32 @pthread_mutex_lock(ptr %mutex)
  %shutdown.at = getelementptr i8, ptr %pool, i64 {SHUTDOWN}
  store atomic i32 1, ptr %shutdown.at seq_cst, align 4
  br label %signal
signal:
  %a = phi i64 [1, %stop], [%a.next, %signal.one]
  %a.more = icmp ult i64 %a, %threads
  br i1 %a.more, label %signal.one, label %unlock
signal.one:
  {part("%part.a", "%a")}
  %cond.a = getelementptr i8, ptr %part.a, i64 {COND}
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
  {part("%part.b", "%b")}
  %handle.at = getelementptr i8, ptr %part.b, i64 {HANDLE}
  %handle = load i64, ptr %handle.at
  call i32 @pthread_join(i64 %handle, ptr null)
  %cond.b = getelementptr i8, ptr %part.b, i64 {COND}
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

"""Run hostile Python in a forked process, behind what the system offers.

`run(work)` forks this (warm) process, gives up everything in the fork that `work` does
not need, and brings back one JSON value. What holds, by system:

- everywhere (POSIX): an own session without terminal or environment, an empty folder,
  no open files, limits on time, memory, processes and file sizes; another user where
  the parent is root. A Python audit hook refuses files outside Python's own folders,
  sockets, processes, signals, ctypes and gc.
- Linux with libseccomp: a list of the few system calls that computing needs. No socket,
  process, thread, signal or written file passes, from Python or from machine code.
- Linux with Landlock: only Python's own folders can be read, so neither the course's
  solutions nor other submissions.
- Linux that lets this user have a network namespace (`unshare_network`): no network.

`barriers()` tries each from inside and tells what held. What is never out of reach is
the memory of the fork itself: whoever runs machine code in it (through a bug in an
extension module) can forge the one value that it sends.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import secrets
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOBODY = 65534
_NONCE = 16
_ANSWER, _KEY = 3, 4  # the only files that a fork keeps open
# What reading modules, allocating memory and looking at the clock needs, no more.
SYSTEM_CALLS = """
read readv pread64 write close lseek fstat stat lstat newfstatat statx access
faccessat faccessat2 readlink readlinkat getdents64 getcwd ioctl fcntl dup mmap munmap
mremap mprotect madvise mbind brk futex sched_yield sched_getaffinity sched_getscheduler
getcpu membarrier rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
rseq set_robust_list clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday
time times getrusage getrandom getpid gettid getppid getuid geteuid getgid getegid
getpriority sysinfo uname getrlimit poll select pselect6 ppoll exit exit_group
"""


@dataclass(frozen=True)
class Limits:
    """Seconds (processor, clock), bytes above the start, bytes of the answer."""

    processor: int = 20
    clock: float = 60
    memory: int = 2**30
    answer: int = 2**20


@dataclass(frozen=True)
class Outcome:
    """`value`, or in `problem` why there is none."""

    value: Any = None
    problem: str | None = None


def run(
    work: Callable[[], Any], limits: Limits = Limits(), *, guard: bool = True
) -> Outcome:
    """What `work()` returns (JSON) when it runs in a confined fork of this process.

    This process must have one thread. `guard` sets the audit hook. Nothing that the
    fork does raises here, and nothing of it is left when this returns.
    """
    nonce = secrets.token_bytes(_NONCE)
    answer, answer_end = os.pipe()
    key_end, key = os.pipe()
    with tempfile.TemporaryDirectory(prefix="course-empty-") as folder:
        os.chmod(folder, 0o555)
        child = os.fork()
        if child == 0:
            _in_fork(work, answer_end, key_end, folder, limits, guard)
        os.close(answer_end)
        os.close(key_end)
        with contextlib.suppress(OSError):
            os.write(key, nonce)
        os.close(key)
        data, problem = _collect(answer, limits)
        for kill in (os.killpg, os.kill):  # also what made a session of its own
            with contextlib.suppress(OSError):
                kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if problem is None and status == -signal.SIGXCPU:
        problem = _too_long(limits)
    if problem is None and not secrets.compare_digest(data[:_NONCE], nonce):
        problem = "it ended its own process"
        if status == -signal.SIGKILL:
            problem = "it let go of its answer, or the system ended it"
        elif status < 0:
            problem = f"it crashed ({signal.Signals(-status).name})"
    if problem is None:
        with contextlib.suppress(ValueError, RecursionError):
            return Outcome(json.loads(data[_NONCE:]))
        problem = "its answer cannot be read"
    return Outcome(problem=problem)


def _too_long(limits: Limits) -> str:
    return f"it ran for more than {limits.processor} s: perhaps an endless loop"


def _collect(pipe: int, limits: Limits) -> tuple[bytes, str | None]:
    """What a fork sends until it closes the pipe, or the problem with that."""
    end, data = time.monotonic() + limits.clock, b""
    try:
        while (left := end - time.monotonic()) > 0:
            if not select.select([pipe], [], [], left)[0]:
                break
            part = os.read(pipe, 2**16)
            if not part:
                return data, None
            data += part
            if len(data) > limits.answer + _NONCE:
                return b"", "its answer is too long"
        return b"", _too_long(limits)
    finally:
        os.close(pipe)


def _in_fork(
    work: Callable[[], Any],
    answer: int,
    key: int,
    folder: str,
    limits: Limits,
    guard: bool,
) -> None:
    """Confine this process, work, answer, end. Does not return."""
    # Bound now: what runs later may put others in their place.
    leave, read, write, dumps = os._exit, os.read, os.write, json.dumps
    try:
        _let_go(answer, key, folder)
        _confine(limits)
        if guard:
            sys.addaudithook(_hook())
        value = dumps(work()).encode("ascii")
        # Read when the student's code is over: until then it lies in no memory here.
        data = read(_KEY, _NONCE) + value
        while data:
            data = data[write(_ANSWER, data) :]
        leave(0)
    finally:
        leave(1)


def _let_go(answer: int, key: int, folder: str) -> None:
    """No terminal, signal handler, environment or open file but the two pipes."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    answer, key = os.dup(answer), os.dup(key)
    while answer <= _KEY:
        answer = os.dup(answer)
    while key <= _KEY:
        key = os.dup(key)
    os.dup2(answer, _ANSWER)
    os.dup2(key, _KEY)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(_KEY + 1, 65536)


def _confine(limits: Limits) -> None:
    """All that this system has; what it lacks is left out (`barriers` tells)."""
    import resource

    bounds = {
        "RLIMIT_CPU": limits.processor,
        "RLIMIT_NPROC": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 64,
    }
    with contextlib.suppress(OSError):  # /proc is Linux's
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        bounds["RLIMIT_AS"] = pages * resource.getpagesize() + limits.memory
    walled = _landlock(readable_folders())
    for name, value in bounds.items():
        # SIGXCPU comes at the soft limit of the processor, SIGKILL at the hard one.
        hard = value + (name == "RLIMIT_CPU")
        with contextlib.suppress(OSError, ValueError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, hard))
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a root without this right
            _become_nobody(may_read=walled)
    if sys.platform == "linux":
        _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with its parent
        _prctl(4, 0)  # PR_SET_DUMPABLE: no other process may look into it
        _seccomp()


def _become_nobody(*, may_read: bool) -> None:
    """Give up root. `may_read`: but keep its right to read, where Landlock lets it.

    A Python that lies in /root needs it to import.
    """
    if may_read:
        _prctl(8, 1)  # PR_SET_KEEPCAPS, over setuid
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    if may_read:
        version, read_search = 0x20080522, 1 << 2  # CAP_DAC_READ_SEARCH
        header = (ctypes.c_uint32 * 2)(version, 0)
        kept = (ctypes.c_uint32 * 6)(read_search, read_search, 0, 0, 0, 0)
        ctypes.CDLL(None).capset(header, kept)


def readable_folders() -> list[str]:
    """Where Python, its packages and shared libraries lie, but nothing of the course.

    The course's own modules are imported before; its folder holds the solutions.
    """
    from course_lib.base import ROOT

    wanted = {sys.prefix, sys.base_prefix, *filter(os.path.isabs, sys.path)}
    wanted |= {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"}
    wanted |= {"/dev/null", "/dev/urandom", "/etc/ld.so.cache", "/etc/localtime"}
    real = {Path(os.path.realpath(x)) for x in wanted if os.path.exists(x)}
    environment = Path(os.path.realpath(sys.prefix))  # may lie in the course's folder
    return sorted(
        str(path)
        for path in real
        if not ROOT.is_relative_to(path)
        and (path.is_relative_to(environment) or not path.is_relative_to(ROOT))
    )


# ------------------------------------------------------------------ Linux


def unshare_network() -> bool:
    """Leave the network for good, this process and its forks. Before any thread."""
    if sys.platform != "linux":
        return False
    new_user, new_network = 0x10000000, 0x40000000
    flags = new_network if os.geteuid() == 0 else new_user | new_network
    return ctypes.CDLL(None, use_errno=True).unshare(flags) == 0


def _prctl(*values: int) -> int:
    return ctypes.CDLL(None).prctl(*(ctypes.c_ulong(x) for x in values), *[0] * 3)


def _landlock(folders: Iterable[str]) -> bool:
    """Refuse every file but reading below `folders`, TCP, and signals to others."""
    if sys.platform != "linux":
        return False
    system = ctypes.CDLL(None, use_errno=True).syscall
    version = system(444, None, ctypes.c_size_t(0), 1)  # the same on every processor
    if version < 1:
        return False
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    read_file, read_folder = 4, 8
    rules = (ctypes.c_uint64 * 3)(2**bits - 1, 3, 3)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = system(444, rules, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False

    class Beneath(ctypes.Structure):
        _pack_ = 1
        _fields_ = (("access", ctypes.c_uint64), ("folder", ctypes.c_int32))

    for path in folders:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access = read_file | (read_folder if os.path.isdir(path) else 0)
        system(445, ruleset, 1, ctypes.byref(Beneath(access, handle)), 0)
        os.close(handle)
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    return system(446, ruleset, 0) == 0


@functools.cache
def _seccomp_library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    return library


def _seccomp() -> bool:
    """Refuse (EPERM) every system call but SYSTEM_CALLS and opening files to read."""
    library = _seccomp_library()
    if library is None:
        return False

    class Compare(ctypes.Structure):
        _fields_ = (
            ("argument", ctypes.c_uint),
            ("operator", ctypes.c_int),
            ("mask", ctypes.c_uint64),
            ("value", ctypes.c_uint64),
        )

    allow, refuse, masked_equal = 0x7FFF0000, 0x00050001, 7
    rules = library.seccomp_init(ctypes.c_uint32(refuse))
    number = library.seccomp_syscall_resolve_name
    for name in SYSTEM_CALLS.split():
        if (call := number(name.encode())) >= 0:  # not every processor has them all
            library.seccomp_rule_add_array(rules, allow, call, 0, None)
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    everything = 2**64 - 1  # prlimit64 may ask for limits, not set them
    for name, position, mask in (
        ("open", 1, writing),
        ("openat", 2, writing),
        ("prlimit64", 2, everything),
    ):
        if (call := number(name.encode())) >= 0:
            reading = Compare(position, masked_equal, mask, 0)
            library.seccomp_rule_add_array(rules, allow, call, 1, ctypes.byref(reading))
    _prctl(38, 1)
    return library.seccomp_load(rules) == 0


# ------------------------------------------------------------------ Python's hook

REFUSED = (
    *("socket.", "subprocess.", "ctypes.", "gc.", "shutil.", "tempfile.", "pty."),
    *("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.kill"),
    *("os.putenv", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate"),
    *("os.link", "os.symlink", "os.chmod", "os.chown", "os.chdir", "os.chflags"),
    *("os.listdir", "os.scandir", "signal.", "sys._current", "sys.set", "mmap."),
)


def _hook() -> Callable[[str, tuple[Any, ...]], None]:
    folders = tuple(path + os.sep for path in readable_folders())
    real, text, writing = os.path.realpath, os.fsdecode, os.O_WRONLY | os.O_RDWR

    def refuse(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            if isinstance(path, int):
                return
            inside = real(text(path)).startswith(folders)
            if not inside or (flags or 0) & writing:
                raise PermissionError("an answer opens no files")
        elif event in ("os.listdir", "os.scandir"):  # importing lists folders
            path = given[0] if given and given[0] is not None else "."
            if not real(text(path) + os.sep + ".").startswith(folders):
                raise PermissionError("an answer lists no folders")
        elif event.startswith(REFUSED):
            raise PermissionError(f"an answer may not use {event}")

    return refuse


# ------------------------------------------------------------------ what holds


def barriers() -> dict[str, bool]:
    """{barrier: whether the system itself holds it}; the audit hook is left aside."""
    outcome = run(_attempts, Limits(processor=5, clock=60), guard=False)
    held = outcome.value or {}
    return {name: held.get(name, False) for name in _TRIES}


def _attempts() -> dict[str, bool]:
    held = {}
    for name, act in _TRIES.items():
        try:
            act()
        except OSError as error:
            # A connection that is refused has found a network.
            held[name] = not isinstance(error, ConnectionRefusedError)
    return held


def _fork_once() -> None:
    if os.fork() == 0:
        os._exit(0)


def _make_file() -> None:
    path = Path(tempfile.gettempdir(), f"course-try-{os.getpid()}")
    path.touch(exist_ok=False)
    path.unlink()


_TRIES: dict[str, Callable[[], Any]] = {
    "network": lambda: socket.socket().connect(("127.0.0.1", 9)),
    "processes": _fork_once,
    "signals": lambda: os.kill(os.getppid(), 0),
    "files": _make_file,
    "solutions": lambda: Path(__file__).with_name("exercises.py").read_bytes(),
}

"""Starts the process groups of one worker, and kills them all when the worker is gone.

Run as a program of its own (`python -I -S reaper.py FD`), by path and with the standard library
only: it has to be small, quick to start and hard to kill. FD is one end of a SOCK_SEQPACKET pair;
the worker holds the other, and its end-of-file is the worker's death. The reaper forks each command
itself, into a process group of its own, so it knows every group before its program runs; and forks
are cheap and safe here, where there is one thread and little memory.

From the worker: {"start": ID, "argv", "env", "cwd"} with three descriptors (stdin, stdout, stderr)
and the command in a fourth, since a packet is bounded and a command is not; and
{"signal": NUMBER, "id": ID}, to a whole group. To the worker: {"id", "pid"} before the program runs
(so that either of the two can kill the group when the other dies), then {"id", "status"} (of
waitpid), or {"id", "errno", "text"} when the program could not be run.

When the first process of a group has ended, the rest of the group is killed before its id is freed,
so a signal never reaches a stranger. On Linux, processes that left their group are adopted by the
reaper when their parents end, and killed at the end of the worker with everything else; and when
the reaper itself is killed, the kernel kills the first process of each group.
"""

import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

PACKET_BYTES_MAX = 4_096
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def main(descriptor: int) -> None:
    """Serve the worker until its end of the socket is closed; then leave no process behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    if _prctl is not None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.set_inheritable(descriptor, False)
    worker = socket.socket(fileno=descriptor)
    groups: dict[int, int] = {}  # Process (and group) id -> the worker's id for it.
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    try:
        while True:
            ready = [each for each, _ in poll.poll()]
            if wake_read in ready:
                os.read(wake_read, 4_096)
                _collect(worker, groups)
            if worker.fileno() in ready and not _obey(worker, groups):
                return
    except OSError:
        return  # The worker vanished while it was being told something.
    finally:
        _end_everything(groups)


def _obey(worker: socket.socket, groups: dict[int, int]) -> bool:
    """Carry one request out; False at the end of the worker."""
    packet, descriptors, _flags, _address = socket.recv_fds(worker, PACKET_BYTES_MAX, 4)
    if not packet:
        return False
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    request = json.loads(packet)
    if "start" in request:
        _start(worker, groups, request["start"], descriptors)
    else:
        for pid, name in groups.items():
            if name == request["id"]:
                _signal_group(pid, request["signal"])
    for descriptor in descriptors:
        os.close(descriptor)
    return True


def _start(
    worker: socket.socket, groups: dict[int, int], name: int, descriptors: list[int]
) -> None:
    command = json.loads(os.pread(descriptors[3], os.fstat(descriptors[3]).st_size, 0))
    failed_read, failed_write = os.pipe()  # Closed by a successful exec.
    go_read, go_write = os.pipe()  # The child waits here until the worker was told of it.
    try:
        pid = os.fork()
    except OSError as error:
        for each in (failed_read, failed_write, go_read, go_write):
            os.close(each)
        _tell(worker, {"id": name, "errno": error.errno, "text": f"fork: {error.strerror}"})
        return
    if pid == 0:
        os.close(go_write)
        _become(command, descriptors[:3], go_read, failed_write)
    groups[pid] = name
    os.close(failed_write)
    os.close(go_read)
    _tell(worker, {"id": name, "pid": pid})
    os.write(go_write, b"g")
    os.close(go_write)
    failure = os.read(failed_read, 4_096)
    os.close(failed_read)
    if failure:
        del groups[pid]
        os.waitpid(pid, 0)
        _tell(worker, {"id": name, **json.loads(failure)})


def _become(command: dict[str, Any], standard: list[int], go_read: int, failed_write: int) -> None:
    """In the child: turn into the command, in its own group. Never returns."""
    try:
        os.setpgid(0, 0)
        if _prctl is not None:
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if not os.read(go_read, 1):
            os._exit(127)  # The reaper was killed: nobody knows this group.
        signal.set_wakeup_fd(-1)
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGCHLD,
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):
            signal.signal(number, signal.SIG_DFL)
        # Out of the way of 0, 1 and 2 first; everything of ours closes at exec by itself.
        for target, source in enumerate([os.dup(each) for each in standard]):
            os.dup2(source, target)
        if command["cwd"]:
            os.chdir(command["cwd"])
        os.execvpe(command["argv"][0], command["argv"], command["env"])
    except OSError as error:
        where = command["cwd"] if error.filename == command["cwd"] else command["argv"][0]
        code = errno.ENOENT if _was_found_nowhere(error, command) else error.errno
        failure = {"errno": code, "text": f"{where[:1_000]}: {os.strerror(code or 0)}"}
        os.write(failed_write, json.dumps(failure).encode())
    except ValueError as error:
        failure = {"errno": 22, "text": str(error)}
        os.write(failed_write, json.dumps(failure).encode())
    finally:
        os._exit(127)


def _was_found_nowhere(error: OSError, command: dict[str, Any]) -> bool:
    """Whether it was only refused a look into a directory of PATH, or met one of that name."""
    program = command["argv"][0]
    if error.errno != errno.EACCES or error.filename == command["cwd"] or "/" in program:
        return False
    # Unlike Path.is_file, these say no where one may not look.
    places = [f"{each}/{program}" for each in os.get_exec_path(command["env"])]
    return not any(os.access(each, os.F_OK) and not Path(each).is_dir() for each in places)


def _collect(worker: socket.socket, groups: dict[int, int]) -> None:
    """Report every group whose first process has ended, after killing what is left of it."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        if ended.si_pid in groups:
            _signal_group(ended.si_pid, signal.SIGKILL)
        pid, status = os.waitpid(ended.si_pid, 0)
        name = groups.pop(pid, None)
        if name is not None:
            _tell(worker, {"id": name, "status": status})


def _tell(worker: socket.socket, answer: dict[str, object]) -> None:
    worker.send(json.dumps(answer).encode())


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # Nobody of it is left but the first process, which has ended.


def _end_everything(groups: dict[int, int]) -> None:
    """Kill every group, then every process that the reaper adopts, until none is left."""
    for pid in groups:
        _signal_group(pid, signal.SIGKILL)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        try:
            if children.exists():
                for child in children.read_text().split():
                    os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)
        except ProcessLookupError:
            continue
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""What keeps a student's code from the answers, from the checks and from the results, when it is graded.

It is a fence and no wall: the code runs in the process that checks it, and Python lets it look and reach
nearly everywhere there. See "What remains possible" in README.md.
"""

import os
import secrets
import sys
import sysconfig
from pathlib import Path

FORBIDDEN = {  # events of Python's audit hooks: other processes, other machines, other objects' insides
    *("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
    *("os.kill", "os.killpg", "os.link", "os.chmod", "os.chown", "socket.connect", "socket.bind"),
    *("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._current_frames", "sys.setprofile"),
    *("sys.settrace", "sys.addaudithook"),
}
PYTHON = (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values())
SYSTEM = ("/usr", "/lib", "/lib64", "/etc", "/sys", "/dev/null", "/dev/urandom", "/proc/cpuinfo")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def put_up(folder):
    """From now on, this process reads only the student's folder, Python's files and the system's, and writes
    only into that folder."""
    writable = (os.path.realpath(folder),)
    readable = writable + tuple(os.path.realpath(path) for path in (*PYTHON, *SYSTEM))
    forbidden, realpath = frozenset(FORBIDDEN), os.path.realpath  # names of modules can be given new values

    def inside(path, places):
        path = realpath(os.fsdecode(path))
        return any(path == place or path.startswith(place + os.sep) for place in places)

    def hook(event, args):
        if event in forbidden:
            raise PermissionError(f"not possible when it is graded: {event}")
        if event == "open" and not isinstance(args[0], int):
            mode, flags = str(args[1] or ""), args[2] or 0
            writes = bool(flags & WRITING or set(mode) & set("wax+"))
            if not inside(args[0], writable + ("/dev/null",) if writes else readable):
                raise PermissionError(f"not possible when it is graded: to open {args[0]}")
        if event in ("os.rename", "os.remove", "os.symlink") and not inside(args[0], writable):
            raise PermissionError(f"not possible when it is graded: {event} {args[0]}")

    sys.addaudithook(hook)


def run(run_here, function, user):
    """Run a check behind the fence, as this user if one is named. Returns what is wrong, or ""."""
    import torch
    from checks import common

    if user:
        import pwd

        about = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(about.pw_gid)
        os.setuid(about.pw_uid)
    put_up(Path.cwd())
    before = [(module, dict(vars(module))) for module in (common, sys.modules[function.__module__])]
    before.append((torch, {name: getattr(torch, name) for name in ("equal", "allclose", "as_tensor")}))
    run_check, checks_hint, trap = common.run_check, function.__globals__.get("hint"), secrets.token_hex(8)
    wrong = run_here(function)
    changed = [
        name for module, names in before for name, x in names.items() if vars(module).get(name) is not x
    ]
    # A hint must still end a check, or all of them pass
    if changed or (checks_hint and run_check(lambda: checks_hint(trap)) != trap):
        return f"your code changes what checks it {changed[:3]}"
    return wrong

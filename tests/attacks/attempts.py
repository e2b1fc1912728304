"""Attacks that must be refused: bodies of a function that returns what it got. One name, one attack.

PARENT, PORT and SCRATCH stand for the process under test, a port it listens on, and a directory of its own.
"""

FILES = {
    "read a file": "return open('/etc/passwd').read(80)",
    "read a file by descriptor": "return os.read(os.open('/etc/passwd', os.O_RDONLY), 80)",
    "read a file through a subclass walk": """
        todo = [object]
        while todo:
            kind = todo.pop()
            todo += type.__subclasses__(kind)
            if kind.__name__ == 'FileIO':
                return kind('/etc/passwd').read(80)""",
    "read a file through the garbage collector": """
        todo, seen = [attempt], set()
        while todo:
            thing = todo.pop()
            if getattr(thing, '__name__', '') == 'open' and getattr(thing, '__module__', '') in ('io', '_io'):
                return thing('/etc/passwd').read(80)
            if id(thing) not in seen:
                seen.add(id(thing))
                todo += gc.get_referents(thing)""",
    "read a file through a loader": """
        from importlib.machinery import SourceFileLoader
        return SourceFileLoader('x', os.__file__).get_data('/etc/passwd')[:80]""",
    "read the engine's source": "return open(sys.modules['env.episode'].__file__).read()",
    "write a file": "return os.open('SCRATCH/written', os.O_CREAT | os.O_WRONLY)",
    "list a directory": "return os.listdir('/')",
    "look at a file": "return os.stat('/etc/passwd')",
    "link a file": "return os.symlink('/etc/passwd', 'SCRATCH/link') or 'linked'",
    "remove a file": "return os.unlink('SCRATCH/precious') or 'removed'",
    "make a directory": "return os.mkdir('SCRATCH/made') or 'made'",
    "change the directory": "return os.chdir('/tmp') or 'moved'",
    "load a shared object": "return ctypes.CDLL('libresolv.so.2')",
    "import an unloaded module": "import sqlite3; return sqlite3",
    "duplicate a descriptor": "return os.dup2(0, 9)",
    "read from the pipe meant for writing": "return os.read(1, 1)",
    "write to the pipe meant for reading": "return os.write(0, b'x')",
    "reach into every other descriptor": """
        for handle in range(2, 200):
            try:
                return os.read(handle, 1)
            except OSError as error:
                last = error
        raise last""",
}

PROCESSES = {
    "read our own memory file": "return open('/proc/self/mem', 'rb')",
    "read the parent's memory file": "return open('/proc/PARENT/mem', 'rb')",
    "read the parent's environment": "return open('/proc/PARENT/environ', 'rb').read()",
    "read the parent's maps": "return open('/proc/PARENT/maps').read()",
    "list the parent's files": "return os.listdir('/proc/PARENT/fd')",
    "list processes": "return os.listdir('/proc')",
    "fork": "return os.fork() or os._exit(0)",
    "fork a terminal": "return os.forkpty()[0] or os._exit(0)",
    "spawn a program": "return os.posix_spawn('/bin/true', ['true'], {})",
    "become a program": "return os.execv('/bin/true', ['true'])",
    "run a shell": "status = os.system('true')\nif status: raise OSError(status)\nreturn status",
    "start a thread": "return _thread.start_new_thread(time.sleep, (0,))",
    "signal the parent": "return os.kill(PARENT, 0) or 'signalled'",
    "kill the parent": "return os.kill(PARENT, 9) or 'killed'",
    "signal everybody": "return os.kill(-1, 0) or 'signalled'",
    "kill the zygote": "return os.kill(os.getppid(), 9) or 'killed'",
    "signal our group": "return os.killpg(0, 0) or 'signalled'",
    "hold the parent": "return os.pidfd_open(PARENT)",
    "ask who we are": "return os.sched_setaffinity(0, [0]) or 'set'",
    "lower the parent's priority": "return os.setpriority(os.PRIO_PROCESS, PARENT, 19) or 'set'",
    "wait for others": "return os.waitpid(-1, os.WNOHANG)",
    "become root": "return os.setuid(0) or 'root'",
    "leave the session": "return os.setsid()",
}

NETWORK = {
    "connect over TCP": "s = socket.socket(); s.connect(('127.0.0.1', PORT)); return s",
    "send a datagram": "return socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "open a unix socket": "return socket.socket(socket.AF_UNIX)",
    "open a netlink socket": "return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "open a packet socket": "return socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "make a socket pair": "return socket.socketpair()",
    "look up a name": "return socket.getaddrinfo('localhost', 80)",
    "give the zygote orders": """
        for thing in gc.get_objects():
            if type(thing) is socket.socket:
                return thing.send(bytes(8))
        raise OSError('the socket is gone')""",
    "give the zygote orders on its old descriptor": """
        from env.isolation import wire
        return socket.socket(fileno=0).send(wire.ORDER.pack(wire.START, 99))""",
}

CLOCKS = {
    "sleep": "return time.sleep(0.01) or 'slept'",
    "ignore the processor limit": "return signal.signal(signal.SIGXCPU, signal.SIG_IGN)",
    "ignore being told to end": "return signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "set a timer": "return signal.setitimer(signal.ITIMER_REAL, 0.01)",
    "set the clock": "return time.clock_settime(time.CLOCK_REALTIME, 0)",
    "raise a limit": """
        import resource
        return resource.setrlimit(resource.RLIMIT_CPU, (9999, 9999)) or 'raised'""",
    "raise the parent's limit": """
        import resource
        return resource.prlimit(PARENT, resource.RLIMIT_NOFILE)""",
    "draw randomness from the system": "return os.urandom(8)",
}

# name -> numbers on x86_64 and aarch64, and arguments with which nothing would be done where it is allowed.
SYSTEM_CALLS = {
    "trace the parent": (101, 117, (16, "PARENT", 0, 0)),
    "read the parent's memory": (310, 270, ("PARENT", 0, 0, 0, 0, 0)),
    "write the parent's memory": (311, 271, ("PARENT", 0, 0, 0, 0, 0)),
    "take the parent's descriptor": (438, 438, (0, 0, 0)),
    "compare with the parent": (312, 272, ("PARENT", "PARENT", 0, 0, 0)),
    "make a memory file": (319, 279, (0, 0)),
    "handle page faults": (323, 282, (0,)),
    "set up an io_uring": (425, 425, (0, 0)),
    "load a BPF program": (321, 280, (0, 0, 0)),
    "count with perf": (298, 241, (0, 0, -1, -1, 0)),
    "mount": (165, 40, (0, 0, 0, 0, 0)),
    "leave the namespaces": (272, 97, (0x10000000,)),
    "enter a namespace": (308, 268, (0, 0)),
    "change the root": (161, 51, (0,)),
    "become dumpable": (157, 167, (4, 1, 0, 0, 0)),
    "filter again": (317, 277, (1, 0, 0)),
    "filter again by prctl": (157, 167, (22, 2, 0, 0, 0)),
    "make a Landlock rule set": (444, 444, (0, 0, 1)),
    "add a key": (248, 217, (0, 0, 0, 0, 0)),
    "share memory": (29, 194, (0, 4096, 0o1600)),
    "make a semaphore": (64, 190, (0, 1, 0o1600)),
    "make a message queue": (68, 186, (0, 0o1600)),
    "open by handle": (304, 265, (-1, 0, 0)),
    "signal a thread": (234, 131, (0, 0, 0)),
    "queue a signal": (129, 138, ("PARENT", 0, 0)),
    "clone": (435, 435, (0, 0)),
    "execute at a descriptor": (322, 281, (-1, 0, 0, 0, 0x1000)),
    "move between pipes": (276, 77, (0, 1, 1, 0)),
    "set a descriptor's owner": (72, 25, (1, 8, "PARENT")),
    "push to a terminal": (16, 29, (0, 0x5412, 0)),
    "change the personality": (135, 92, (0xFFFFFFFF,)),
    "watch files": (294, 26, (0,)),
    "reboot": (169, 142, (0, 0, 0, 0)),
    "map executable memory": (9, 222, (0, 4096, 5, 0x22, -1, 0)),
    "map a descriptor": (9, 222, (0, 4096, 1, 1, 0, 0)),
    "make memory executable": (10, 226, (0, 0, 4)),
    "make memory executable by key": (329, 288, (0, 0, 4, -1)),
    "take over an address space": (440, 440, (0, 0, 0, 0, 0)),
}

BODIES = FILES | PROCESSES | NETWORK | CLOCKS

# Where nothing confines them these gain something, whoever runs them: so a refusal above means something.
BITING = (
    "read a file",
    "read a file by descriptor",
    "read a file through a subclass walk",
    "read a file through the garbage collector",
    "read a file through a loader",
    "write a file",
    "list a directory",
    "look at a file",
    "link a file",
    "remove a file",
    "make a directory",
    "change the directory",
    "load a shared object",
    "duplicate a descriptor",
    "read our own memory file",
    "read the parent's environment",
    "read the parent's maps",
    "list the parent's files",
    "list processes",
    "fork",
    "spawn a program",
    "run a shell",
    "start a thread",
    "signal the parent",
    "hold the parent",
    "connect over TCP",
    "send a datagram",
    "open a unix socket",
    "open a netlink socket",
    "make a socket pair",
    "sleep",
    "ignore the processor limit",
    "ignore being told to end",
    "set a timer",
    "draw randomness from the system",
)

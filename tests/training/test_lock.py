"""One run a workdir, between real processes and after one was killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from alm_jax.config import ConfigError
from alm_jax.training import lock

HOLD = """
import sys, time
from alm_jax.training import lock
with lock.held(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def hold(workdir):
    with subprocess.Popen([sys.executable, '-c', HOLD, workdir], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b'held\n'
            yield process
        finally:
            process.kill()


def test_another_is_refused_until_the_holder_is_killed(tmp_path):
    workdir = tmp_path / 'runs' / 'new'
    with hold(workdir) as process:
        told = rf'{workdir} is in use by process {process.pid} on {socket.gethostname()}, since 20'
        with pytest.raises(ConfigError, match=told), lock.held(workdir):
            pass
        assert lock.holder(workdir)['pid'] == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (workdir / 'LOCK').exists()  # it tells of one that is no more
    assert lock.holder(workdir) is None
    with lock.held(workdir):
        assert lock.holder(workdir)['pid'] == os.getpid()
    assert not (workdir / 'LOCK').exists()
    assert lock.holder(workdir) is None


def test_a_child_of_a_killed_run_does_not_hold_it(tmp_path):
    """Decode processes may outlive their run by a moment."""
    begin = 'import subprocess; child = subprocess.Popen(["sleep", "60"]); print(child.pid)\n'
    script = HOLD.replace("    print('held'", f"    {begin}    print('held'")
    command = [sys.executable, '-c', script, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        process.stdout.readline()
        process.kill()
    with lock.held(tmp_path):
        os.kill(child, signal.SIGKILL)


def test_never_two_at_a_time(tmp_path):
    """Each of them removes the file that others have just opened."""
    inside, most = [], []

    def take():
        for _ in range(50):
            try:
                with lock.held(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except ConfigError:
                pass

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}

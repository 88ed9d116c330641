"""Imported first by the fork server of `catsweep.search.executor`, which so leaves the controller's session.

A signal to the whole group of the controller (Ctrl-C while modules are imported, `timeout`, a batch system) would else
end the fork server, and with it all word of how trials end. It goes by itself when the controller is gone.
"""

import os
import signal

FORK_SERVER = "CATSWEEP_FORK_SERVER"  # environment variable, set for it alone

if os.environ.pop(FORK_SERVER, None):
    os.setsid()
    # Blocked until now; what came was for the controller, and is forgotten by being ignored for a moment.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    for number in blocked:
        handler = signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        signal.signal(number, handler)

"""Imported first by the fork server of `catsweep.search.executor`, which so leaves the controller's session.

A signal to the whole group of the controller (Ctrl-C while modules are imported, `timeout`, a batch system) would else
end the fork server, and with it all word of how trials end. It goes by itself when the controller is gone.
"""

import os

FORK_SERVER = "CATSWEEP_FORK_SERVER"  # environment variable, set for it alone

if os.environ.pop(FORK_SERVER, None):
    os.setsid()

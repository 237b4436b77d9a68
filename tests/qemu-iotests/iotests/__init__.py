# SPDX-License-Identifier: MIT
"""What an end-to-end test needs; tests do `from iotests import *`.

env      what `check` chose: transport, programs, scratch directory
testing  run(), log(), skip(), attempt(), filters
process  run programs with a time limit
qmp      QMP client
daemon   StorageDaemon and exported(): a disk image as a file
host     mounts, loop devices, file systems, fio
load     writers that check what the daemon has promised
faults   rounds of faults, as many as a test wants
lost     storage that loses what was written to it
mortal   the daemon's death, and what must not be left of it
inject   faults between the daemon and its libraries
qcow2    qcow2 images with options, exported and killed
storm    random QMP commands from several monitors at once
"""

from .env import *
from .testing import *
from .process import *
from .qmp import *
from .host import *
from .daemon import *
from .load import *
from .faults import *
from .lost import *
from .mortal import *
from .inject import *
from .qcow2 import *
from .storm import *

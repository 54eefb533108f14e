"""Memory that a port takes before it answers, in the way that is named: its own, a child's, that of a mapped file."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import time

MUCH, LITTLE = 300 << 20, 30 << 20
FOR_GOOD, A_WHILE = 600.0, 0.5  # seconds
ORPHAN = "import time; time.sleep(20)"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {ORPHAN!r}], start_new_session=True)"
CHILD = f"import time; held = b'x' * {MUCH}; time.sleep({FOR_GOOD})"


def devour(how: str) -> None:
    """Hold what `how` says; one that takes too much goes no further."""
    if how == "gorges":
        held = b"x" * MUCH
        time.sleep(FOR_GOOD)
        del held
    elif how in ("its child gorges", "its emancipated child gorges"):
        child = subprocess.Popen([sys.executable, "-S", "-c", CHILD], start_new_session="emancipated" in how)
        with open(os.environ.get("GLUTTON", os.devnull), "w", encoding="utf-8") as file:
            file.write(str(child.pid))
        child.wait()
    elif how == "its grandchild gets away":
        subprocess.run([sys.executable, "-S", "-c", PARENT], check=True)
        sys.exit(3)
    elif how == "nibbles":
        held = b"x" * LITTLE
        time.sleep(A_WHILE)
        del held
    elif how == "maps":
        with tempfile.TemporaryFile() as file:
            file.truncate(MUCH)
            with mmap.mmap(file.fileno(), MUCH, access=mmap.ACCESS_READ) as mapped:
                sum(mapped[:: mmap.PAGESIZE])
                time.sleep(A_WHILE)

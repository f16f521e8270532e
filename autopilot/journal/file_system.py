"""What the file system under a journal can be relied on for.

SQLite's write-ahead log needs memory shared between processes, which network file systems do not
have, and its locks are only as good as theirs: https://www.sqlite.org/wal.html, section 2, and
https://www.sqlite.org/lockingv3.html, section 6.
"""

import errno
import fcntl
import tempfile
from pathlib import Path

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})
"""How a file system says that it has no locks."""
_MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs",
     "glusterfs", "orangefs", "ocfs2", "virtiofs"}
)  # fmt: skip
_NETWORK_PREFIXES = ("fuse.", "fuseblk.")
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.overlayfs", "fuse.mergerfs"})


def network_file_system(path: str | Path) -> str | None:
    """The name of the network file system that a path lies on; None where it is a local one.

    Where the system does not list its mounts, it counts as local.
    """
    try:
        mounts = _MOUNTS.read_text()
    except OSError:
        return None
    kind = kind_of_mount(str(Path(path).resolve()), mounts)
    return kind if kind is not None and _is_network(kind) else None


def has_locks(folder: str | Path) -> bool:
    """Whether files in a folder can be locked; True where that cannot be tried."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS
    return True


def kind_of_mount(path: str, mounts: str) -> str | None:
    r"""The file system that a path lies on.

    Args:
        path: An absolute path.
        mounts: The lines of ``/proc/self/mounts``; of two mounts at one place the later holds.

    >>> mounts = "/dev/sda1 / ext4 rw 0 0\nfiler:/home /home nfs4 rw 0 0\n"
    >>> kind_of_mount("/home/eve/runs", mounts), kind_of_mount("/homes", mounts)
    ('nfs4', 'ext4')
    """
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = fields[1].encode().decode("unicode_escape").rstrip("/")
        inside = path == place or path.startswith(place + "/")
        if inside and (found is None or len(place) >= found[0]):
            found = len(place), fields[2]
    return None if found is None else found[1]


def _is_network(kind: str) -> bool:
    return kind in _NETWORK or (kind.startswith(_NETWORK_PREFIXES) and kind not in _LOCAL_FUSE)

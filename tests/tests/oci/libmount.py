"""As much of libmount's Python module, which Debian does not have, as crun's tests use: the options of a mount."""


class Mount:
    def __init__(self, vfs_options, fs_options):
        self.vfs_options = vfs_options
        self.fs_options = fs_options


class Table:
    """The mounts of a file in the form of /proc/self/mountinfo."""

    def __init__(self, path):
        with open(path) as lines:
            self.lines = [line.split() for line in lines if " - " in line]

    def find_target(self, target):
        for fields in reversed(self.lines):
            if fields[4] == target:
                return Mount(fields[5], fields[-1])
        return None

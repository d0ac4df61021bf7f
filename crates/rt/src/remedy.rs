//! What to do about an answer of the system, in one place for all that opens, makes or writes files.

use std::io;

/// What to do where the system refuses something at a path, to stand behind its answer: begins with
/// "; ", or is empty where nothing is known.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EROFS) => {
            "; it is read-only: mount that file system for writing (the kernel's log tells whether an \
             error made it so), or choose a path on another"
        }
        Some(libc::EACCES) => {
            "; let this user read and write it, and enter the folders above it (ls -ld; SELinux and \
             AppArmor count too)"
        }
        Some(libc::EPERM) => {
            "; look whether it is read-only (blockdev --getro) or immutable (lsattr), or this process \
             is confined"
        }
        Some(libc::ENOSPC) => "; make room there",
        Some(libc::EDQUOT) => "; raise the quota of this user there",
        Some(libc::EFBIG) => {
            "; it would be larger than a file may be: for this process (ulimit -f, LimitFSIZE= of the \
             unit), or on that file system"
        }
        Some(libc::EOPNOTSUPP) => {
            "; that file system cannot do it: choose a path on one that can, such as ext4 or XFS"
        }
        Some(libc::ENOENT) => {
            "; nothing is there: a folder on the way is missing, or a link leads nowhere"
        }
        Some(libc::EEXIST | libc::ENOTDIR) => {
            "; what is there, or on the way, is no folder but a file, or a link that leads nowhere"
        }
        Some(libc::EISDIR) => "; it is a folder: name a file in it",
        Some(libc::ELOOP) => "; links there lead to each other",
        Some(libc::EMFILE | libc::ENFILE) => {
            "; raise the limit of open files (LimitNOFILE= of the unit, ulimit -n)"
        }
        Some(libc::ENOMEM) => {
            "; raise the limits of memory (ulimit -v and -d, LimitAS= of the unit, the container's), \
             or configure fewer shards"
        }
        Some(libc::EIO) => "; the device failed: the kernel's log tells more",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_at_a_path_has_a_remedy() {
        for (errno, words) in [
            (libc::EROFS, "read-only"),
            (libc::EACCES, "ls -ld"),
            (libc::EPERM, "blockdev --getro"),
            (libc::ENOSPC, "room"),
            (libc::EFBIG, "ulimit -f"),
            (libc::EOPNOTSUPP, "ext4"),
            (libc::EEXIST, "leads nowhere"),
            (libc::ENOMEM, "ulimit -v"),
        ] {
            let said = remedy(&io::Error::from_raw_os_error(errno));
            assert!(said.starts_with("; ") && said.contains(words), "{errno}: {said}");
        }
        assert_eq!(remedy(&io::Error::other("of our own")), "");
    }
}

//! Whether files can be made in a folder, asked without leaving one there.
#![cfg_attr(
    any(test, feature = "testing"),
    expect(unsafe_code, reason = "a test gives up the rights of its thread")
)]

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Looks whether this process may make files in `folder`: makes one without a name, which is gone
/// at once. That asks more than mode bits do: a file system may be read-only, or a folder
/// immutable. Where files without names are not known, nothing is known.
///
/// # Errors
/// Why it may not.
pub fn makes_files(folder: &Path) -> io::Result<()> {
    let made = File::options().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder);
    match made {
        Err(error) if is_refusal(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    let refusals = [
        libc::EACCES,
        libc::EPERM,
        libc::EROFS,
        libc::ENOSPC,
        libc::EDQUOT,
        libc::EIO,
        libc::ENOENT,
    ];
    error.raw_os_error().is_some_and(|code| refusals.contains(&code))
}

/// Runs `body` without the rights of root, on a thread of its own: to test what is refused.
///
/// # Panics
/// If they cannot be given up, or `body` panics.
#[cfg(any(test, feature = "testing"))]
pub fn without_rights<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    const NOBODY: libc::c_long = 65_534;
    let run = || {
        // SAFETY: takes no argument, touches no memory.
        if unsafe { libc::geteuid() } == 0 {
            // SAFETY: three numbers and no memory. The system call itself, as opposed to the
            // library's function, changes this thread alone, which ends with `body`; threads that
            // it starts are nobody's as well.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(changed, 0, "root may be nobody");
        }
        body()
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("it does not panic"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_takes_no_files_says_so_and_one_that_takes_them_stays_empty() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let asked = |mode| {
            fs::set_permissions(at, Permissions::from_mode(mode)).unwrap();
            without_rights(|| makes_files(at).map_err(|error| error.kind()))
        };
        assert_eq!(asked(0o777), Ok(()));
        assert_eq!(asked(0o555), Err(io::ErrorKind::PermissionDenied));
        fs::set_permissions(at, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(fs::read_dir(at).unwrap().count(), 0);
        let absent = makes_files(&at.join("absent")).map_err(|error| error.kind());
        assert_eq!(absent, Err(io::ErrorKind::NotFound));
    }

    #[test]
    fn a_file_system_that_knows_no_files_without_names_is_no_refusal() {
        let is_one = |code| is_refusal(&io::Error::from_raw_os_error(code));
        assert!([libc::EROFS, libc::EACCES, libc::EPERM].into_iter().all(is_one));
        assert!(![libc::EOPNOTSUPP, libc::EISDIR, libc::EINVAL].into_iter().any(is_one));
    }
}

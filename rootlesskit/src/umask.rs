//! Sockets that nobody else may connect to, whatever umask a user or a service manager has set.

use nix::sys::stat::{Mode, umask};

/// Runs `make` such that nobody else can write to what it creates, or to what the programs that it starts
/// will create; connecting to a socket is writing (unix(7)). A stricter umask stays. The umask belongs to the process: call from the main thread, while no other thread creates files.
pub(crate) fn private<T>(make: impl FnOnce() -> T) -> T {
    let others = Mode::S_IWGRP | Mode::S_IWOTH;
    let before = umask(others);
    umask(before | others);
    let made = make();
    umask(before);
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_socket_is_private_and_the_umask_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        private(|| std::os::unix::net::UnixListener::bind(&path)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{mode:o}");
        let before = umask(Mode::from_bits_truncate(0o077));
        let within = private(|| umask(Mode::from_bits_truncate(0o077)));
        let after = umask(before);
        assert_eq!((within.bits(), after.bits()), (0o077, 0o077));
    }
}

//! Sockets that nobody else may connect to, whatever umask a user or a service manager has set.

use nix::sys::stat::{Mode, umask};

/// Runs `make` such that what it creates, and what the programs that it starts will create, is for us only.
/// The umask belongs to the process: call from the main thread, while no other thread creates files.
pub(crate) fn private<T>(make: impl FnOnce() -> T) -> T {
    let before = umask(Mode::from_bits_truncate(0o077));
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
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        let now = private(|| umask(Mode::from_bits_truncate(0o077)));
        assert_eq!(now.bits(), 0o077);
    }
}

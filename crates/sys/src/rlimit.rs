//! The limit of open files (getrlimit(2)).

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A soft and a hard limit of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nofile {
    /// What counts now.
    pub soft: u64,
    /// Up to where the soft limit can be raised.
    pub hard: u64,
}

/// Raises our soft limit to the hard one and returns what was before, for programs that we start: a
/// large soft limit slows programs that close or scan every descriptor.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2).
pub fn raise_nofile() -> io::Result<Nofile> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(Nofile { soft, hard })
}

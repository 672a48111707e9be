//! The limit of open files (getrlimit(2)).

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// A soft and a hard limit of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nofile {
    /// What counts now.
    pub soft: u64,
    /// Up to where the soft limit can be raised.
    pub hard: u64,
}

/// Our own limits.
///
/// # Errors
/// Those of getrlimit(2).
pub fn nofile() -> io::Result<Nofile> {
    getrlimit(Resource::RLIMIT_NOFILE).map(Nofile::from).map_err(io::Error::from)
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
    Ok((soft, hard).into())
}

impl From<(rlim_t, rlim_t)> for Nofile {
    #[allow(clippy::useless_conversion, reason = "a limit has 32 bits on 32-bit machines")]
    fn from((soft, hard): (rlim_t, rlim_t)) -> Self {
        Self { soft: soft.into(), hard: hard.into() }
    }
}

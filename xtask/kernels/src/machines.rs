//! The machines: which kernel, on which Debian, with how many processors.

use tests::{Flavour, Kernel, Machine, Suite};

/// A column of the page.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    pub(crate) machine: Machine,
}

/// From the oldest kernel to the newest. Each of Debian's flavours is there, and one, two and four processors.
pub(crate) fn columns() -> Vec<Column> {
    [
        ("bullseye", Suite::Bullseye, "bullseye", Flavour::Generic, 1),
        ("bookworm", Suite::Bookworm, "bookworm", Flavour::Cloud, 2),
        ("bookworm-backports", Suite::Bookworm, "bookworm-backports", Flavour::Generic, 4),
        ("trixie", Suite::Trixie, "trixie", Flavour::Generic, 4),
        ("sid", Suite::Sid, "sid", Flavour::Cloud, 2),
        ("trixie-backports", Suite::Trixie, "trixie-backports", Flavour::Generic, 4),
    ]
    .map(|(name, suite, kernel, flavour, processors)| {
        let kernel = Kernel { suite: kernel, flavour };
        let machine = Machine { kernel, processors, prepared: false, ..Machine::of(suite) };
        Column { name, machine }
    })
    .to_vec()
}

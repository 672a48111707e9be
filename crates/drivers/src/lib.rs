//! The network and port drivers of rootlesskit: their names, what they can do, which of them go together, and which
//! network driver to use if the user names none.
//!
//! rootlesskit, the launcher and the setup tool share this crate, so they cannot disagree. No other crate compares the
//! name of a driver as a string. Nothing here touches the system: [`choose`] asks its questions through a trait.

pub mod choose;
mod network;
mod port;
mod reason;

pub use network::{Helper, NetworkDriver};
pub use port::PortDriver;
pub use reason::Reason;

/// The names of several drivers, separated by commas.
pub fn list<T: ToString>(drivers: impl IntoIterator<Item = T>) -> String {
    drivers.into_iter().map(|driver| driver.to_string()).collect::<Vec<_>>().join(", ")
}

//! The limit of open files: raised, checked before anything exists that would have to be undone, and shared out.

use anyhow::{Context as _, bail};
use budget::{Budget, DataPath, FEW, MINIMUM};
use sys::rlimit::Nofile;

use crate::launch::Launch;

const HINT: &str = "hint: raise the hard limit with LimitNOFILE= in the service, ulimit -Hn, or /etc/security/limits.d";

/// Raises our limit as far as it goes. Returns what it was before, for programs that we start. `taken` descriptors are
/// somebody else's (socket activation).
pub(super) fn raise(taken: usize) -> anyhow::Result<Nofile> {
    let nofile = sys::rlimit::raise_nofile().context("failed to raise the limit of open files")?;
    if nofile.hard.saturating_sub(taken as u64) < MINIMUM {
        let others = match taken {
            0 => String::new(),
            taken => format!(", of which {taken} are sockets of the service manager"),
        };
        bail!(
            "the limit of open files is {}{others}; rootlesskit needs at least {MINIMUM}\n{HINT}",
            nofile.hard
        );
    }
    Ok(nofile)
}

/// What the parent may do.
pub(super) fn budget(launch: &Launch, nofile: Nofile, taken: usize) -> anyhow::Result<Budget> {
    let path = launch.ports.data_path();
    let in_parent = path == DataPath::Parent && launch.network.takes_descriptors();
    share(nofile.hard, path, taken + if in_parent { budget::NETWORK } else { 0 })
}

fn share(limit: u64, path: DataPath, others: usize) -> anyhow::Result<Budget> {
    let budget = Budget::beside(limit, path, others);
    if !budget.works() {
        let enough = (limit..).find(|limit| Budget::beside(*limit, path, others).works());
        bail!(
            "the limit of open files is {limit}; with these drivers and sockets rootlesskit needs at least {}\n{HINT}",
            enough.unwrap_or_default()
        );
    }
    Ok(budget)
}

/// Says what a low limit has room for, if our own drivers have to do with it.
pub(super) fn warn(launch: &Launch, budget: &Budget) {
    if let Some(words) =
        words(budget, launch.network.takes_descriptors()).filter(|_| budget.limit <= FEW)
    {
        tracing::warn!("the limit of open files is {}: {words}\n{HINT}", budget.limit);
    }
}

/// `gateway` is whether the network is ours as well.
fn words(budget: &Budget, gateway: bool) -> Option<String> {
    match budget.path {
        DataPath::Elsewhere if !gateway => None,
        DataPath::Parent if gateway => {
            let network = Budget::new(budget.limit, DataPath::Gateway);
            Some(format!("{}; {}", budget.words(), network.words_out()))
        }
        DataPath::Elsewhere => Some(Budget::new(budget.limit, DataPath::Gateway).words_out()),
        DataPath::Parent | DataPath::Gateway => Some(budget.words()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_told_before_anything_is_made() {
        // Ours is higher, so all but a few of it is taken.
        let hard = sys::rlimit::nofile().unwrap().hard;
        let taken = usize::try_from(hard.min(1 << 30) - 24).unwrap();
        if hard < 1 << 30 {
            let error = raise(taken).unwrap_err().to_string();
            assert!(
                error.contains("needs at least 48\nhint: ") && error.contains("sockets of"),
                "{error}"
            );
        }
        assert!(raise(0).is_ok());
    }

    #[test]
    fn a_limit_without_room_for_a_connection_is_refused() {
        let error = share(48, DataPath::Parent, 20).unwrap_err().to_string();
        let enough = error.split_once("needs at least ").unwrap().1;
        let enough = enough.split_once('\n').unwrap().0.parse().unwrap();
        assert!(enough > 48 && share(enough, DataPath::Parent, 20).is_ok(), "{error}");
        assert!(share(enough - 1, DataPath::Parent, 20).is_err());
        assert!(share(48, DataPath::Elsewhere, 40).is_ok());
    }

    #[test]
    fn what_is_said_fits_the_drivers() {
        let said = |path, gateway| words(&Budget::new(256, path), gateway).unwrap_or_default();
        assert_eq!(said(DataPath::Elsewhere, false), "");
        let all = said(DataPath::Gateway, true);
        assert!(all.contains("published ports") && all.contains("outbound"), "{all}");
        let own = said(DataPath::Parent, false);
        assert!(own.contains("published ports") && !own.contains("outbound"), "{own}");
        let both = said(DataPath::Parent, true);
        assert!(both.starts_with(&own) && both.contains("outbound"), "{both}");
        let out = said(DataPath::Elsewhere, true);
        assert!(out.contains("outbound") && !out.contains("published"), "{out}");
    }
}

//! Keeping a lease: extending it in time, and following what the server changes.

use std::time::Duration;

use super::client::{Lost, Port, acquire, extend};
use super::lease::Lease;

/// A round of looking for a server, when there was one before.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two such rounds.
const SEARCH_INTERVAL: Duration = Duration::from_secs(30);

/// The interface as the kernel has it, and the file with the name servers.
pub(super) trait Network {
    fn install(&mut self, lease: &Lease) -> anyhow::Result<()>;

    fn withdraw(&mut self, lease: &Lease) -> anyhow::Result<()>;

    /// Follows another router and other name servers of the same address.
    fn adjust(&mut self, old: &Lease, new: &Lease) -> anyhow::Result<()>;
}

pub(super) fn turn(
    port: &mut impl Port,
    mac: [u8; 6],
    lease: &Lease,
    network: &mut impl Network,
) -> Option<Lease> {
    let times = lease.times?;
    match extend(port, mac, lease, times) {
        Ok(next) => {
            follow(lease, &next, network);
            Some(next)
        }
        Err(lost) => {
            match lost {
                Lost::Expired => tracing::warn!(
                    "the lease of {} has expired, because no DHCP server answered; the network is down until one answers",
                    lease.address
                ),
                Lost::Refused(why) => {
                    tracing::warn!(
                        "the address {} is no longer valid: {why}; requesting another one",
                        lease.address
                    );
                }
            }
            say(network.withdraw(lease), "remove the address");
            let next = search(port, mac);
            tracing::warn!("the network's address is now {}", next.address);
            say(network.install(&next), "configure the network");
            Some(next)
        }
    }
}

fn search(port: &mut impl Port, mac: [u8; 6]) -> Lease {
    loop {
        match acquire(port, mac, SEARCH_TIMEOUT) {
            Ok(lease) => return lease,
            Err(e) => tracing::debug!("{e}"),
        }
        port.wait(port.now() + SEARCH_INTERVAL);
    }
}

fn follow(old: &Lease, new: &Lease, network: &mut impl Network) {
    if (old.address, old.prefix) == (new.address, new.prefix) {
        tracing::debug!("the lease of {} was extended", new.address);
        say(network.adjust(old, new), "apply the new lease");
        return;
    }
    tracing::warn!(
        "the DHCP server has changed the address from {} to {}",
        old.address,
        new.address
    );
    say(network.withdraw(old), "remove the old address");
    say(network.install(new), "configure the new address");
}

fn say(result: anyhow::Result<()>, what: &str) {
    if let Err(e) = result {
        tracing::error!("failed to {what}: {e:#}");
    }
}

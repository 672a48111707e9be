//! Source addresses of TCP clients kept: a server in the namespace sees the client, not the relay.
//!
//! # Theory of operation
//!
//! The relay dials from a socket that is bound to the address of the client (`IP_TRANSPARENT`, ip(7)) and carries the
//! mark [`DIAL_MARK`] (`SO_MARK`, socket(7)). What the server answers is addressed to the client, so ordinarily it would
//! leave by the default route. [`prepare`] and [`arm`] bring it back to the socket of the relay:
//!
//! 1. *output*: a packet with [`DIAL_MARK`] marks its connection with [`REPLY_MARK`];
//! 2. *prerouting*: a packet of such a connection, from a container behind a bridge, gets the mark [`REPLY_MARK`];
//! 3. `tcp_fwmark_accept`: a server in the namespace itself accepts a SYN with that mark (it passed *prerouting* on `lo`)
//!    and its socket has the mark from then on; `fwmark_reflect`: so has the RST of a closed port, which makes a refused
//!    dial fail at once and not after a timeout;
//! 4. a rule sends what has [`REPLY_MARK`] to a table in which each address is local.
//!
//! Since the dialing socket is marked, nothing has to guess from its address whether a packet is one of ours.
//! The two marks differ because a packet with [`REPLY_MARK`] can only go to `lo`, whereas the dial has to reach a
//! container. UDP cannot be done this way (RootlessKit 3.0.0 did, and took it back in 3.0.1, issue 592).
//!
//! Packet rules cost every packet of the namespace a walk through netfilter and connection tracking, so [`prepare`] only
//! proves that the kernel takes them, and [`arm`] installs them once there is a client whose address is worth keeping.
//!
//! Nothing is undone: it all goes away with the namespace. Installing again replaces what is there.

mod iptables;

use std::path::Path;
use std::str::FromStr;
use std::{fmt, io};

use crate::nft::{Batch, Hook, PRIORITY_MANGLE, Statement};
use crate::{Error, Family, Result, Rt, sysctl};

/// Mark (`SO_MARK`) of a socket that dials with the address of a client.
pub const DIAL_MARK: u32 = 101;
/// Mark of the connections made by such sockets and of the packets that answer them; the same as RootlessKit's.
pub const REPLY_MARK: u32 = 100;
/// Routing table in which each address is local; the same as RootlessKit's.
pub const TABLE: u32 = 100;
/// Priority of the rule that selects [`TABLE`]; the same as RootlessKit's.
pub const RULE_PRIORITY: u32 = 100;
/// Name of the nftables table (family `inet`).
pub const NFT_TABLE: &str = "rootlesskit";

const IPPROTO_TCP: u8 = 6;

/// Who installs the two packet rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nftables, over netlink.
    Nft,
    /// The programs `iptables` and `ip6tables`.
    Iptables,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        })
    }
}

/// The value of `--source-ip-transparent-backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// nftables, and iptables where the kernel does not offer it.
    #[default]
    Auto,
    /// This one and no other.
    Only(Backend),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(value: &str) -> std::result::Result<Self, String> {
        match value {
            "auto" => Ok(Self::Auto),
            "nft" => Ok(Self::Only(Backend::Nft)),
            "iptables" => Ok(Self::Only(Backend::Iptables)),
            other => Err(format!(
                "unknown source-ip-transparent backend {other:?}\nhint: use auto, nft or iptables"
            )),
        }
    }
}

/// What [`prepare`] has put in place.
#[derive(Debug)]
pub struct Installed {
    /// Who holds the packet rules; displays as the `sourceIPTransparentBackend` of the API.
    pub backend: Backend,
    /// Whether it holds for IPv6 too; otherwise for IPv4 only, because of this.
    pub ipv6: Result<()>,
}

/// Prepares the network namespace of the calling thread, whose `lo` has to be up. `proc_sys` is `/proc/sys`. What is left
/// for [`arm`] are the packet rules of [`Backend::Nft`].
///
/// iptables is a child process: a reaper that calls `wait4(-1)` must leave it alone until this returns.
///
/// # Errors
/// What is missing; source addresses can then not be kept. An IPv6 that is missing is no error, see [`Installed`].
pub fn prepare(proc_sys: &Path, choice: Choice) -> Result<Installed> {
    let mut rt = Rt::open()?;
    set_parameters(proc_sys)?;
    divert_replies(&mut rt, Family::V4)?;
    let mut ipv6 = prepare_ipv6(proc_sys, &mut rt);
    let backend = first_that_works(
        choice,
        || packet_rules(Keep::No),
        || {
            iptables::install("iptables", DIAL_MARK, REPLY_MARK)?;
            if ipv6.is_ok() {
                ipv6 = iptables::install("ip6tables", DIAL_MARK, REPLY_MARK);
            }
            Ok(())
        },
    )?;
    Ok(Installed { backend, ipv6 })
}

/// Installs the packet rules of `backend` in the network namespace of the calling thread, which [`prepare`] has prepared.
///
/// # Errors
/// What the kernel refuses now although it took it before.
pub fn arm(backend: Backend) -> Result<()> {
    match backend {
        Backend::Nft => packet_rules(Keep::Yes),
        Backend::Iptables => Ok(()),
    }
}

fn set_parameters(proc_sys: &Path) -> Result<()> {
    sysctl::write(proc_sys, "net.ipv4.tcp_fwmark_accept", "1")?;
    sysctl::write(proc_sys, "net.ipv4.fwmark_reflect", "1")?;
    // WireGuard set-ups switch this on for the host and new namespaces inherit it. The reverse path check would then
    // find the source of a reply in our table, as one of our own addresses, and drop it as spoofed.
    if sysctl::read(proc_sys, "net.ipv4.conf.all.src_valid_mark")? != "0" {
        sysctl::write(proc_sys, "net.ipv4.conf.all.src_valid_mark", "0")?;
    }
    Ok(())
}

fn prepare_ipv6(proc_sys: &Path, rt: &mut Rt) -> Result<()> {
    // Shared with IPv4 but for this one; its absence tells of a kernel without IPv6.
    sysctl::write(proc_sys, "net.ipv6.fwmark_reflect", "1")?;
    divert_replies(rt, Family::V6)
}

fn divert_replies(rt: &mut Rt, family: Family) -> Result<()> {
    rt.add_local_default(family, TABLE)?;
    rt.add_fwmark_rule(family, REPLY_MARK, TABLE, RULE_PRIORITY)
}

/// Whether rules outlive their transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    /// They are added and deleted in one: the kernel checks them all and keeps none.
    No,
}

fn packet_rules(keep: Keep) -> Result<()> {
    let mut batch = Batch::new();
    batch.replace_table(NFT_TABLE);
    let tcp = Statement::MatchL4Proto(IPPROTO_TCP);
    let output = [tcp, Statement::MatchMark(DIAL_MARK), Statement::SetCtMark(REPLY_MARK)];
    batch.add_chain(NFT_TABLE, "output", Hook::Output, PRIORITY_MANGLE);
    batch.add_rule(NFT_TABLE, "output", &output);
    let prerouting = [tcp, Statement::MatchCtMark(REPLY_MARK), Statement::SetMark(REPLY_MARK)];
    batch.add_chain(NFT_TABLE, "prerouting", Hook::Prerouting, PRIORITY_MANGLE);
    batch.add_rule(NFT_TABLE, "prerouting", &prerouting);
    if keep == Keep::No {
        batch.delete_table(NFT_TABLE);
    }
    batch.commit()
}

/// Installs by the backend of choice; when both fail, says why each of them did.
fn first_that_works(
    choice: Choice,
    nft: impl FnOnce() -> Result<()>,
    iptables: impl FnOnce() -> Result<()>,
) -> Result<Backend> {
    let nft_failed = match choice {
        Choice::Only(Backend::Nft) => return nft().map(|()| Backend::Nft),
        Choice::Only(Backend::Iptables) => return iptables().map(|()| Backend::Iptables),
        Choice::Auto => match nft() {
            Ok(()) => return Ok(Backend::Nft),
            Err(error) => error,
        },
    };
    iptables().map(|()| Backend::Iptables).map_err(|iptables_failed| {
        let reasons = format!(
            "{nft_failed}; {iptables_failed}\n\
             hint: load the kernel modules nf_tables, nft_ct and nf_conntrack, or install iptables"
        );
        Error::new("keep the source addresses of clients", io::Error::other(reasons))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_is_parsed_and_refused_with_a_remedy() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("nft".parse(), Ok(Choice::Only(Backend::Nft)));
        assert_eq!("iptables".parse(), Ok(Choice::Only(Backend::Iptables)));
        let refusal = "NFT".parse::<Choice>().unwrap_err();
        assert!(refusal.contains("\"NFT\"") && refusal.contains("hint: use auto, nft or iptables"));
    }
    fn refuse(what: &str) -> Result<()> {
        Err(Error::new(what, io::Error::from_raw_os_error(95)))
    }

    #[test]
    fn iptables_is_used_where_nft_is_refused_and_only_then() {
        let unused = || panic!("must not be called");
        let auto = Choice::Auto;
        assert_eq!(first_that_works(auto, || Ok(()), unused).unwrap(), Backend::Nft);
        let fallback = first_that_works(auto, || refuse("nft"), || Ok(()));
        assert_eq!(fallback.unwrap(), Backend::Iptables);
        let nft = Choice::Only(Backend::Nft);
        let error = first_that_works(nft, || refuse("nft"), unused).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(95));
        let iptables = Choice::Only(Backend::Iptables);
        assert_eq!(first_that_works(iptables, unused, || Ok(())).unwrap(), Backend::Iptables);
    }

    #[test]
    fn two_refusals_are_both_told() {
        let error = first_that_works(Choice::Auto, || refuse("nft"), || refuse("iptables"));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("nft: Operation not supported (os error 95); iptables: "), "{text}");
        assert!(text.contains("\nhint: load the kernel modules"), "{text}");
    }
}

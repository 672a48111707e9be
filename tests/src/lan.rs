//! Several hosts on one network: boxes with cables to a switch.
//!
//! ```text
//!   box 1                            netns "lan"                            box 2
//!   lan0 10.78.0.1/24  <-- veth -->  cableN [ bridge lan ] cableM  <-- veth -->  lan0 10.78.0.2/24
//!   eth0 and its own peer                                                  eth0 and its own peer
//! ```
//!
//! The switch is in a network namespace of its own. It ends with the thread that made it, as boxes do, and all cables go
//! with it.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{PATIENCE, TestBox, wait};

/// The interface of a box at the end of its cable.
pub const DEVICE: &str = "lan0";

/// A network that boxes [`join`](Self::join).
#[derive(Debug)]
pub struct Lan {
    switch: Child,
    mtu: u32,
}

impl Lan {
    /// An Ethernet of the usual MTU.
    ///
    /// # Errors
    /// Not root, or a step fails.
    pub fn new() -> Result<Self> {
        Self::with_mtu(1500)
    }

    /// One whose hosts know that it carries no larger packets than these.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_mtu(mtu: u32) -> Result<Self> {
        let switch = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .context("starting a switch")?;
        let mut lan = Self { switch, mtu };
        let own = fs::read_link("/proc/self/ns/net")?;
        let namespace = format!("/proc/{}/ns/net", lan.switch.id());
        wait::until_true("the switch has a namespace", PATIENCE, || {
            if let Some(status) = lan.switch.try_wait()? {
                bail!("it ended with {status}");
            }
            Ok(fs::read_link(&namespace).is_ok_and(|namespace| namespace != own))
        })?;
        // No router sends anything by itself, and nobody is waited for: the bridge forwards at once.
        lan.ip("link add lan type bridge stp_state 0 mcast_snooping 0")?;
        lan.ip("link set lan up")?;
        Ok(lan)
    }

    /// Gives a box the interface [`DEVICE`] with these addresses ("10.78.0.1/24", "fd78::1/64").
    ///
    /// # Errors
    /// A step fails; the box has joined already, or is gone.
    pub fn join(&self, b: &TestBox, addresses: &[&str]) -> Result<()> {
        let (mtu, init, cable) = (self.mtu, b.init_pid(), cable(b));
        self.ip(&format!(
            "link add {cable} mtu {mtu} type veth peer name {DEVICE} mtu {mtu} netns {init}"
        ))?;
        self.ip(&format!("link set {cable} master lan up"))?;
        b.root(&format!("sysctl -qw net.ipv6.conf.{DEVICE}.accept_dad=0")).ok()?;
        for address in addresses {
            b.root(&format!("ip address add {address} dev {DEVICE}")).ok()?;
        }
        b.root(&format!("ip link set {DEVICE} up")).ok().map(drop)
    }

    /// Pulls the cable of a box.
    ///
    /// # Errors
    /// It has not joined.
    pub fn cut_off(&self, b: &TestBox) -> Result<()> {
        self.ip(&format!("link set {} down", cable(b)))
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// It has not joined.
    pub fn bring_back(&self, b: &TestBox) -> Result<()> {
        self.ip(&format!("link set {} up", cable(b)))
    }

    /// Runs `ip ARGS` where the switch is.
    fn ip(&self, args: &str) -> Result<()> {
        let out = Command::new("nsenter")
            .args(["-t", &self.switch.id().to_string(), "--net", "ip"])
            .args(args.split(' '))
            .output()
            .context("running nsenter")?;
        ensure!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }
}

/// The switch's end of the cable of a box.
fn cable(b: &TestBox) -> String {
    format!("cable{}", b.init_pid())
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}

//! Several hosts on one network: boxes with cables to a switch.
//!
//! ```text
//!   box 1                            netns "lan"                            box 2
//!   lan0 10.78.0.1/24  <-- veth -->  cable1 [ bridge lan ] cable2  <-- veth -->  lan0 10.78.0.2/24
//!   eth0 and its own peer                                                  eth0 and its own peer
//! ```
//!
//! The switch is in a network namespace of its own. It ends with the thread that made it, as boxes do, and all cables go
//! with it.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{PATIENCE, TestBox, wait};

/// The interface of a box at the end of its cable.
pub const DEVICE: &str = "lan0";

/// A network that boxes [`join`](Self::join).
#[derive(Debug)]
pub struct Lan {
    switch: Child,
    mtu: u32,
    cables: AtomicU32,
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
        let mut lan = Self { switch, mtu, cables: AtomicU32::new(0) };
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
    pub fn join<'l>(&'l self, b: &TestBox, addresses: &[&str]) -> Result<Cable<'l>> {
        let plug = format!("cable{}", self.cables.fetch_add(1, Ordering::Relaxed) + 1);
        let (mtu, init) = (self.mtu, b.init_pid());
        self.ip(&format!(
            "link add {plug} mtu {mtu} type veth peer name {DEVICE} mtu {mtu} netns {init}"
        ))?;
        self.ip(&format!("link set {plug} master lan up"))?;
        b.root(&format!("sysctl -qw net.ipv6.conf.{DEVICE}.accept_dad=0")).ok()?;
        for address in addresses {
            b.root(&format!("ip address add {address} dev {DEVICE}")).ok()?;
        }
        b.root(&format!("ip link set {DEVICE} up")).ok()?;
        Ok(Cable { lan: self, plug })
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

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}

/// What joins a box to a [`Lan`]. It stays when this value is dropped.
#[derive(Debug)]
pub struct Cable<'l> {
    lan: &'l Lan,
    plug: String,
}

impl Cable<'_> {
    /// Cuts the box off.
    ///
    /// # Errors
    /// The box is gone.
    pub fn pull(&self) -> Result<()> {
        self.lan.ip(&format!("link set {} down", self.plug))
    }

    /// Brings it back.
    ///
    /// # Errors
    /// The box is gone.
    pub fn plug(&self) -> Result<()> {
        self.lan.ip(&format!("link set {} up", self.plug))
    }
}

//! What the scenarios have in common: a box without helpers, a daemon in it.

use tests::docker::{Docker, version};
use tests::{Result, Suite, TestBox, ensure};

pub(crate) use tests::containers::{
    FIXTURE, HOST, PEER, drivers, inside, page, peer_serves, refused, rootlessctl, serve,
    state_dir, ways_out, ways_out_but_ping,
};

/// What a server sees in place of a client that has no address of its own that means something inside.
pub(crate) const GATEWAY: &str = "10.0.2.2";

/// A host on which the gateway is the only network that can work.
pub(crate) fn bare(suite: Suite) -> Result<TestBox> {
    without_helpers(TestBox::boot(suite)?)
}

/// The same with Debian's dockerd, whichever is under test.
pub(crate) fn bare_debian(suite: Suite) -> Result<TestBox> {
    without_helpers(TestBox::builder(suite).debians_dockerd().boot()?)
}

fn without_helpers(b: TestBox) -> Result<TestBox> {
    b.root("rm -f /usr/bin/slirp4netns /usr/bin/vpnkit /usr/bin/pasta* /usr/bin/passt*").ok()?;
    let found = b.user("command -v slirp4netns pasta passt vpnkit").run()?;
    ensure!(found.stdout.is_empty(), "helpers are installed: {found}");
    Ok(b)
}

/// A daemon whose launcher chose the network by itself, with the image `bb`.
pub(crate) fn start(b: &TestBox) -> Result<Docker<'_>> {
    let d = Docker::start(b, &[])?;
    drivers(b, "gateway", "gateway")?;
    d.import()?;
    Ok(d)
}

/// Whether the running dockerd is on the host's network and its containers are in a detached namespace.
pub(crate) fn detached(b: &TestBox) -> Result<bool> {
    Ok(b.exists(&format!("{}/netns", state_dir(b)?)))
}

/// Fails unless the launcher chose the kind of namespace that suits the dockerd: a detached one since 29.5, development builds
/// included.
pub(crate) fn right_namespace(b: &TestBox) -> Result<()> {
    let version = version(b.suite())?;
    let mut numbers = version.split('.').map_while(|n| n.parse::<u32>().ok());
    let release = (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0));
    ensure!(detached(b)? == (release >= (29, 5)), "not the right namespace for {version}");
    Ok(())
}

/// A daemon with an attached namespace, which a dockerd gets that cannot do otherwise.
pub(crate) const ATTACHED: (&str, &str) = ("DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS", "false");

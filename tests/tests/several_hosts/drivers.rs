//! Drivers that cannot make a node.

use tests::{Result, Suite, TestBox, ensure};

#[test]
fn drivers_that_cannot_keep_strangers_out_or_addresses_are_refused() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let pairs = [
        ("gateway", "builtin"),
        ("slirp4netns", "builtin"),
        ("slirp4netns", "slirp4netns"),
        ("pasta", "implicit"),
        ("pasta", "pesto"),
        ("none", "none"),
    ];
    for (net, ports) in pairs {
        let launcher = b
            .user("dockerd-rootless.sh")
            .env("DOCKERD_ROOTLESS_SWARM", "10.77.0.1,peers=10.77.0.2")
            .env("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", net)
            .env("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", ports);
        let said = launcher.fails_with(1)?;
        let both = format!("the network driver {net} and the port driver {ports}");
        ensure!(said.contains(&both) && said.contains("hint: "), "{said}");
    }
    b.assert_clean(&[])
}

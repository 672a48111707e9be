use hostenv::vars::{
    DOCKERD_ROOTLESS_EGRESS_POLICY as POLICY, DOCKERD_ROOTLESS_FLAGS as FLAGS,
    DOCKERD_ROOTLESS_NET as NET,
};

use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::{Case, all, case};
use crate::facts::Home;

const SYSTEM: &str = "etc/docker-rootless/egress.toml";
const USER: &str = "home/.config/docker-rootless/egress.toml";
const DROP_IN: &str = "home/.config/systemd/user/docker.service.d/override.conf";

/// A host with the gateway and the administrator's policy.
fn restricted(h: &mut Host) {
    h.says("rootlesskit", "--net [host, none, gateway]");
    h.write(SYSTEM, "metadata = \"deny\"\n");
}

#[test]
fn situations_of_an_egress_policy() {
    all(&an_egress_policy());
}

pub(super) fn an_egress_policy() -> Vec<Case> {
    let mut all = files();
    all.extend(drivers());
    all.extend(daemons());
    all
}

fn files() -> Vec<Case> {
    vec![
        case("there is an egress policy", Fatal, "", "", |h| {
            restricted(h);
            h.write(USER, "default = \"deny\"\n");
        }),
        case(
            "the administrator's egress policy has an error",
            Fatal,
            "egress-policy-file",
            "rootlessctl policy check /",
            |h| {
                restricted(h);
                h.write(SYSTEM, "\nmode = 1\n");
            },
        ),
        case(
            "root created HOME, so the egress policy in it is not reported",
            Fatal,
            "home-foreign",
            "chown jo: /",
            |h| {
                restricted(h);
                h.write(USER, "\nmode = 1\n");
            },
        )
        .facts(|facts| {
            let file = facts.egress.iter().find(|file| file.content.is_err());
            let home = file.and_then(|file| file.path.ancestors().nth(3));
            facts.account.home = Home::Withheld(home.unwrap().to_owned(), 0);
        }),
        case(
            "a variable names an egress policy that is missing",
            Fatal,
            "egress-policy-file",
            "or remove DOCKERD_ROOTLESS_ROOTLESSKIT_EGRESS_POLICY from the daemon's settings",
            |h| {
                restricted(h);
                h.set(POLICY, "/nonexistent/egress.toml");
            },
        ),
        case(
            "a drop-in names an egress policy that is missing",
            Fatal,
            "egress-policy-file",
            "or remove DOCKERD_ROOTLESS_ROOTLESSKIT_EGRESS_POLICY from /",
            |h| {
                restricted(h);
                h.write(DROP_IN, &format!("[Service]\nEnvironment={POLICY}=%h/none.toml\n"));
            },
        ),
        case(
            "the flags name an egress policy that is missing",
            Fatal,
            "egress-policy-file",
            "or remove --egress-policy from DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS",
            |h| {
                restricted(h);
                h.set(FLAGS, "--egress-policy=/nonexistent/egress.toml");
            },
        ),
        case("a variable turns the user's egress policy off", Fatal, "", "", |h| {
            restricted(h);
            h.write(USER, "mode = 1\n");
            h.set(POLICY, "");
        }),
        case("a drop-in turns the user's egress policy off", Fatal, "", "", |h| {
            restricted(h);
            h.write(USER, "mode = 1\n");
            h.write(DROP_IN, &format!("[Service]\nEnvironment={POLICY}=\n"));
        }),
    ]
}

fn drivers() -> Vec<Case> {
    vec![
        case(
            "there is an egress policy, and the network driver cannot enforce it",
            Fatal,
            "egress-policy-driver",
            "remove DOCKERD_ROOTLESS_ROOTLESSKIT_NET from the daemon's settings\nor move /",
            |h| {
                restricted(h);
                h.set(NET, "slirp4netns");
            },
        ),
        case("there is an egress policy, and gvisor-tap-vsock enforces it", Fatal, "", "", |h| {
            restricted(h);
            h.set(NET, "gvisor-tap-vsock");
        }),
    ]
}

fn daemons() -> Vec<Case> {
    vec![
        case(
            "the daemon runs without the egress policy",
            Class,
            "egress-policy-restart",
            "systemctl --user restart docker",
            restricted,
        )
        .facts(|facts| facts.egress[0].unused = true),
        case(
            "the egress policy is in dry-run mode",
            Advisory,
            "egress-policy-dry-run",
            "set mode = \"enforce\"",
            |h| {
                restricted(h);
                h.write(SYSTEM, "mode = \"dry-run\"\ndefault = \"deny\"\n");
            },
        ),
    ]
}

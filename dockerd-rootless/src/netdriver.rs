//! The network driver if the user names none: the gateway if it works here, otherwise what
//! [`drivers::choose`] finds among the programs of this machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use drivers::choose::{self, Choice, GATEWAY_PROBE, Machine};
use drivers::{NetworkDriver, Reason};

use crate::host::Host;
use crate::report::{Failure, Note};

/// What the user is told who has no network driver.
const HINT: &str = "install slirp4netns (package slirp4netns on Debian, Ubuntu, Fedora, RHEL, openSUSE, Arch and \
     Alpine) or pasta (package passt, recent enough since Debian 13 and Ubuntu 24.04)";

struct Programs<'a>(&'a dyn Host);

impl Machine for Programs<'_> {
    fn find(&self, program: &str) -> Option<PathBuf> {
        self.0.find(OsStr::new(program))
    }

    fn ask(&self, program: &Path, arg: &str) -> Result<String, String> {
        self.0.ask(program, &[OsStr::new(arg)]).map_err(|e| format!("{e:#}"))
    }
}

/// Chooses the first driver that this machine can serve; `notes` tells why others were passed over.
/// `port_driver` is that of the user, if any: the gateway is not tried if it does not go with it.
pub(crate) fn choose(
    host: &dyn Host,
    rootlesskit: &Path,
    port_driver: Option<&str>,
    notes: &mut Vec<Note>,
) -> Result<NetworkDriver, Failure> {
    // It goes with no other network: as good as naming that.
    if port_driver == Some(NetworkDriver::Gateway.name()) {
        return Ok(NetworkDriver::Gateway);
    }
    let help = Programs(host).ask(rootlesskit, "--help").unwrap_or_default();
    let refused = if choose::may_use_gateway(&help, port_driver) {
        match host.try_out(rootlesskit, &GATEWAY_PROBE) {
            Ok(()) => return Ok(NetworkDriver::Gateway),
            Err(text) => Some(Reason::find(&text)),
        }
    } else {
        None
    };
    let Choice { driver, remarks } = choose::by_programs(&Programs(host), &help);
    if let (Some(reason), Some(net)) = (&refused, driver) {
        notes.push(Note::warn(format!(
            "not using the gateway network driver: {}; using {net} instead{}",
            reason.what,
            hints(reason, ". hint: ")
        )));
    }
    notes.extend(remarks.iter().map(|remark| Note::warn(remark.to_string())));
    driver.ok_or_else(|| none(refused.as_ref()))
}

fn hints(reason: &Reason, before: &str) -> String {
    reason.hints.iter().map(|hint| format!("{before}{hint}")).collect()
}

fn none(refused: Option<&Reason>) -> Failure {
    let mut text =
        "no network driver found: neither slirp4netns (0.4.0 or later) nor pasta (2023_06_25 or \
                    later) is on PATH"
            .to_owned();
    let mut hint = HINT.to_owned();
    if let Some(reason) = refused {
        text.push_str(&format!(", and the gateway network driver does not work: {}", reason.what));
        hint.push_str(&hints(reason, "; or, to use the gateway network driver: "));
    }
    Failure::new(text).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Level;
    use crate::tests::fake_host::Fake;

    const SLIRP: &str = "Usage: slirp4netns [OPTION]...\n--netns-type=TYPE specify the type";
    const OLD: &str = "--net value  [host, none, pasta, slirp4netns]";
    const NEW: &str = "--net value  [host, none, gateway, pasta, slirp4netns]";
    const REFUSAL: &str = "[rootlesskit:child ] error: no tproxy in this kernel\nhint: load nft_tproxy\n\
                           [rootlesskit:parent] error: child exited: exit status 1";
    const PROBE: &str = "/bin/rootlesskit --net=gateway --disable-host-loopback --copy-up=/etc \
                         --copy-up=/run true";

    fn chosen(
        host: &Fake,
        port_driver: Option<&str>,
    ) -> (Result<NetworkDriver, Failure>, Vec<Note>) {
        let mut notes = Vec::new();
        let net = choose(host, Path::new("/bin/rootlesskit"), port_driver, &mut notes);
        (net, notes)
    }

    fn host(help: &'static str) -> Fake {
        Fake::default().with("rootlesskit", help)
    }

    #[test]
    fn the_gateway_comes_first_if_it_works() {
        let h = host(NEW).with("slirp4netns", SLIRP);
        assert_eq!(chosen(&h, None), (Ok(NetworkDriver::Gateway), Vec::new()));
        assert_eq!(*h.asked.borrow(), ["rootlesskit", PROBE]);
        assert_eq!(
            chosen(&host(NEW), Some("builtin")).0,
            Ok(NetworkDriver::Gateway),
            "needs no program"
        );
    }

    #[test]
    fn a_gateway_that_does_not_work_is_passed_over_with_its_reason() {
        let (net, notes) = chosen(&host(NEW).with("slirp4netns", SLIRP).refusing(REFUSAL), None);
        assert_eq!(net, Ok(NetworkDriver::Slirp4netns));
        let expected = "not using the gateway network driver: no tproxy in this kernel; using slirp4netns \
                        instead. hint: load nft_tproxy";
        assert_eq!(notes, [Note::warn(expected)]);
        let e = chosen(&host(NEW).refusing(REFUSAL), None).0.unwrap_err().to_string();
        assert!(
            e.contains(
                "the gateway network driver does not work: no tproxy in this kernel\nhint: "
            ),
            "{e}"
        );
        assert!(e.ends_with("to use the gateway network driver: load nft_tproxy"), "{e}");
    }

    #[test]
    fn a_rootlesskit_without_it_is_not_tried() {
        let h = host(OLD).with("slirp4netns", SLIRP).refusing(REFUSAL);
        assert_eq!(chosen(&h, None), (Ok(NetworkDriver::Slirp4netns), Vec::new()));
        assert_eq!(*h.asked.borrow(), ["rootlesskit", "slirp4netns"]);
        let h = Fake::default().broken("rootlesskit").with("slirp4netns", SLIRP);
        assert_eq!(chosen(&h, None), (Ok(NetworkDriver::Slirp4netns), Vec::new()));
    }

    #[test]
    fn a_port_driver_of_the_user_is_respected() {
        for name in ["slirp4netns", "implicit"] {
            let h = host(NEW).with("slirp4netns", SLIRP);
            assert_eq!(
                chosen(&h, Some(name)),
                (Ok(NetworkDriver::Slirp4netns), Vec::new()),
                "{name}"
            );
        }
        let h = host(NEW).with("slirp4netns", SLIRP).refusing(REFUSAL);
        assert_eq!(chosen(&h, Some("gateway")), (Ok(NetworkDriver::Gateway), Vec::new()));
        assert!(h.asked.borrow().is_empty(), "rootlesskit itself says why not");
    }

    #[test]
    fn the_others_follow_and_what_is_odd_is_told() {
        let pasta = "pasta 0.0~git20230309.7c7625d-1+deb12u1";
        let h = host(OLD).with("slirp4netns", "-c").with("pasta", pasta).with("vpnkit", "");
        let (net, notes) = chosen(&h, None);
        assert_eq!(net, Ok(NetworkDriver::Vpnkit));
        assert!(notes.iter().all(|n| n.level == Level::Warn), "{notes:?}");
        let texts: Vec<_> = notes.iter().map(|n| n.text.as_str()).collect();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("not using /bin/slirp4netns: it is older than 0.4.0"));
        assert!(texts[1].contains("it is version 2023_03_09"));
        let go = host("--net value  [host, none, vpnkit, gvisor-tap-vsock]");
        assert_eq!(chosen(&go, None).0, Ok(NetworkDriver::GvisorTapVsock));
    }

    #[test]
    fn nothing_names_what_to_install() {
        let e = chosen(&host(OLD), None).0.unwrap_err().to_string();
        assert!(e.contains("package slirp4netns") && e.contains("package passt"), "{e}");
        assert!(!e.contains("gateway"), "{e}");
    }
}

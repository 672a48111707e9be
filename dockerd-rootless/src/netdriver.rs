//! The network driver if the user names none: the gateway if it works here, otherwise what
//! [`drivers::choose`] finds among the programs of this machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use drivers::choose::{self, Choice, GATEWAY_PROBE, Helper, Machine};
use drivers::{NetworkDriver, Reason};

use crate::host::Host;
use crate::report::{Failure, Note};

/// What the user is told who has none of the helpers.
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
    let choice = choose::by_programs(&Programs(host), &help);
    if let (Some(reason), Some(net)) = (&refused, choice.driver) {
        let hints: String = reason.remedies().map(|remedy| format!(". hint: {remedy}")).collect();
        notes.push(Note::warn(format!(
            "not using the gateway network driver: {}; using {net} instead{hints}",
            reason.what
        )));
    }
    notes.extend(choice.remarks().map(Note::warn));
    choice.driver.ok_or_else(|| none(refused.as_ref(), &choice))
}

fn none(refused: Option<&Reason>, choice: &Choice) -> Failure {
    let mut text = "no network driver found: neither a working slirp4netns (0.4.0 or later) nor a \
                    working pasta (2023_06_25 or later) is in PATH"
        .to_owned();
    let mut hint = if choice.helpers.iter().all(|(_, helper)| *helper == Helper::Absent) {
        HINT.to_owned()
    } else {
        let remedies = choice.helpers.iter().filter_map(|(driver, helper)| helper.remedy(*driver));
        remedies.collect::<Vec<_>>().join("; or ")
    };
    if let Some(reason) = refused {
        text.push_str(&format!(", and the gateway network driver does not work: {}", reason.what));
        for remedy in reason.remedies() {
            hint.push_str(&format!("; or, to use the gateway network driver: {remedy}"));
        }
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
    const REFUSAL: &str = "[rootlesskit:child ] error: no tproxy in this kernel\n\
                           hint: load nft_tproxy, or use --net=pasta or --net=slirp4netns\n\
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
        let h = host(OLD).with("slirp4netns", "Usage: -c").with("pasta", pasta).with("vpnkit", "");
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

    #[test]
    fn a_helper_that_is_there_and_of_no_use_is_not_to_be_installed() {
        let library = "slirp4netns: error while loading shared libraries: libslirp.so.0";
        let h = host(OLD).with("slirp4netns", library);
        let (net, notes) = chosen(&h, None);
        let hint = "hint: install slirp4netns again (package slirp4netns), because /bin/slirp4netns does not run; or \
                    install pasta 2023_06_25 or later (package passt)";
        let e = net.unwrap_err().to_string();
        assert!(e.ends_with(hint), "{e}");
        let note = "not using /bin/slirp4netns: running it with --help failed: ";
        assert_eq!(notes, [Note::warn(format!("{note}{library}"))]);
        let h = host(OLD).with("slirp4netns", "Usage: -c");
        let e = chosen(&h, None).0.unwrap_err().to_string();
        assert!(
            e.contains("hint: upgrade /bin/slirp4netns to 0.4.0 or later; or install pasta"),
            "{e}"
        );
    }
}

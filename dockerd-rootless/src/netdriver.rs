//! The network driver when the user named none.
//!
//! The chain is that of Docker's own launcher: slirp4netns (0.4.0 or later, told by its help), pasta,
//! VPNKit, and last the gvisor-tap-vsock stack inside rootlesskit. Two links are stronger here: pasta must
//! be recent enough to work under RootlessKit (bookworm's 2023_03 is not), and the last link is used only
//! with a rootlesskit that has it; otherwise the user is told what to install instead of seeing the
//! rejection of a driver that nobody asked for.

use std::ffi::OsStr;
use std::path::Path;

use crate::driver::Net;
use crate::host::Host;
use crate::report::{Failure, Note};

/// Year, month, day.
type Date = (u32, u32, u32);

/// The oldest pasta that RootlessKit's documentation allows.
const PASTA_SINCE: Date = (2023, 6, 25);

/// Chooses the first driver that this machine can serve; `notes` tells why others were passed over.
///
/// # Errors
/// When there is none.
pub(crate) fn choose(
    host: &dyn Host,
    rootlesskit: &Path,
    notes: &mut Vec<Note>,
) -> Result<Net, Failure> {
    if slirp4netns(host, notes) {
        Ok(Net::Slirp4netns)
    } else if pasta(host, notes) {
        Ok(Net::Pasta)
    } else if host.find(OsStr::new("vpnkit")).is_some() {
        Ok(Net::Vpnkit)
    } else if says(host, rootlesskit, "--help").is_ok_and(|help| help.contains("gvisor-tap-vsock"))
    {
        Ok(Net::GvisorTapVsock)
    } else {
        Err(Failure::new("no network driver found: neither slirp4netns (0.4.0 or later) nor pasta \
                          (2023_06_25 or later) is on PATH")
            .hint("install slirp4netns (package slirp4netns on Debian, Ubuntu, Fedora, RHEL, openSUSE, Arch \
                   and Alpine) or pasta (package passt, recent enough since Debian 13 and Ubuntu 24.04)"))
    }
}

fn says(host: &dyn Host, program: &Path, arg: &str) -> anyhow::Result<String> {
    host.ask(program, &[OsStr::new(arg)])
}

fn slirp4netns(host: &dyn Host, notes: &mut Vec<Note>) -> bool {
    let Some(program) = host.find(OsStr::new("slirp4netns")) else { return false };
    let why = match says(host, &program, "--help") {
        Ok(help) if help.contains("--netns-type") => return true,
        Ok(_) => "it is older than 0.4.0".to_owned(),
        Err(e) => format!("asking for its help failed: {e:#}"),
    };
    notes.push(Note::warn(format!("{} is not used: {why}", program.display())));
    false
}

fn pasta(host: &dyn Host, notes: &mut Vec<Note>) -> bool {
    let Some(program) = host.find(OsStr::new("pasta")) else { return false };
    let shown = program.display();
    match says(host, &program, "--version").map(|text| date_in(&text)) {
        Ok(Some(date)) if date >= PASTA_SINCE => true,
        Ok(Some(date)) => {
            notes.push(Note::warn(format!(
                "{shown} is not used: it is of {}, and RootlessKit needs 2023_06_25 or later",
                underscored(date)
            )));
            false
        }
        // Built from a source archive without version: better than no network at all.
        Ok(None) => {
            notes.push(Note::warn(format!(
                "{shown} does not tell its version; using it as if it were recent"
            )));
            true
        }
        Err(e) => {
            notes.push(Note::warn(format!(
                "{shown} is not used: asking for its version failed: {e:#}"
            )));
            false
        }
    }
}

fn underscored((year, month, day): Date) -> String {
    format!("{year:04}_{month:02}_{day:02}")
}

/// The first date in the first line: passt has no other version. Upstream writes `2023_06_25.32660ce`,
/// Debian `0.0~git20230309.7c7625d-1+deb12u1`, Fedora `0^20240426.gd03c4e2-1.fc40`.
fn date_in(output: &str) -> Option<Date> {
    let line = output.lines().next()?.replace('_', "");
    let runs = line.split(|c: char| !c.is_ascii_digit()).filter(|run| run.len() == 8);
    let mut dates = runs.filter_map(|run| {
        Some((run[..4].parse().ok()?, run[4..6].parse().ok()?, run[6..].parse().ok()?))
    });
    dates.find(|(y, m, d)| (2020..2100).contains(y) && (1..=12).contains(m) && (1..=31).contains(d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    const NEW_SLIRP: &str =
        "Usage: slirp4netns [OPTION]...\n--netns-type=TYPE specify network namespace type";
    const OLD_SLIRP: &str = "Usage: slirp4netns [OPTION]...\n-c, --configure";
    const NEW_PASTA: &str = "pasta 2024_12_11.09478d5\nCopyright Red Hat";
    const BOOKWORM_PASTA: &str = "pasta 0.0~git20230309.7c7625d-1+deb12u1\nCopyright Red Hat";

    fn chosen(host: &Fake) -> (Result<Net, Failure>, String) {
        let mut notes = Vec::new();
        let net = choose(host, Path::new("/bin/rootlesskit"), &mut notes);
        (net, notes.into_iter().map(|n| n.text + "\n").collect())
    }

    fn host() -> Fake {
        Fake::default().with("rootlesskit", "--net value  [host, none, pasta, slirp4netns]")
    }

    #[test]
    fn f036_slirp4netns_comes_first() {
        let h = host().with("vpnkit", "").with("pasta", NEW_PASTA).with("slirp4netns", NEW_SLIRP);
        assert_eq!(chosen(&h), (Ok(Net::Slirp4netns), String::new()));
        assert_eq!(*h.asked.borrow(), ["slirp4netns"]);
    }

    #[test]
    fn f036_f091_an_old_or_broken_slirp4netns_is_passed_over() {
        let h = host().with("slirp4netns", OLD_SLIRP).with("pasta", NEW_PASTA);
        let (net, notes) = chosen(&h);
        assert_eq!(net, Ok(Net::Pasta));
        assert!(notes.contains("/bin/slirp4netns is not used: it is older than 0.4.0"), "{notes}");
        let h = host().broken("slirp4netns").with("pasta", NEW_PASTA);
        assert_eq!(chosen(&h).0, Ok(Net::Pasta));
    }

    #[test]
    fn f052_f036_pasta_must_be_recent() {
        let (net, notes) = chosen(&host().with("pasta", BOOKWORM_PASTA).with("vpnkit", ""));
        assert_eq!(net, Ok(Net::Vpnkit));
        assert!(notes.contains("it is of 2023_03_09"), "{notes}");
        assert_eq!(chosen(&host().with("pasta", "pasta unknown version")).0, Ok(Net::Pasta));
        assert!(chosen(&host().broken("pasta")).0.is_err());
    }

    #[test]
    fn f036_f054_vpnkit_then_the_stack_inside_rootlesskit() {
        assert_eq!(chosen(&host().with("vpnkit", "")).0, Ok(Net::Vpnkit));
        assert!(chosen(&host().with("docker-vpnkit", "")).0.is_err());
        let go = Fake::default()
            .with("rootlesskit", "--net value  [host, none, vpnkit, gvisor-tap-vsock]");
        assert_eq!(chosen(&go).0, Ok(Net::GvisorTapVsock));
    }

    #[test]
    fn f036_nothing_names_what_to_install() {
        let e = chosen(&host()).0.unwrap_err().to_string();
        assert!(e.contains("package slirp4netns") && e.contains("package passt"), "{e}");
    }

    #[test]
    fn dates_of_known_builds() {
        assert_eq!(date_in(NEW_PASTA), Some((2024, 12, 11)));
        assert_eq!(date_in(BOOKWORM_PASTA), Some((2023, 3, 9)));
        assert_eq!(date_in("pasta 0^20240426.gd03c4e2-1.fc40.x86_64"), Some((2024, 4, 26)));
        assert_eq!(date_in("pasta 2023_06_25.20209999"), Some((2023, 6, 25)));
        assert_eq!(date_in("pasta unknown version\n2024_01_01"), None);
        assert_eq!(date_in("pasta 20991399"), None);
    }
}

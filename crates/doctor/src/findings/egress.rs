//! The files that say what containers may reach: what the launcher or rootlesskit refuses, and what is not enforced.

use ::egress::Mode;
use drivers::NetworkDriver;

use super::driver::gateway_in_force;
use super::{Finding, Wish};
use crate::facts::{Facts, Home, PolicyFile, UserSetting};

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    // A home that is somebody else's is a finding of its own.
    let withheld = match &facts.account.home {
        Home::Foreign(home, _) | Home::Withheld(home, _) => Some(home),
        _ => None,
    };
    let is_withheld = |file: &&PolicyFile| withheld.is_some_and(|home| file.path.starts_with(home));
    let files: Vec<_> = facts.egress.iter().filter(|file| !is_withheld(file)).collect();
    if files.is_empty() {
        return;
    }
    findings.extend(files.iter().copied().filter_map(content));
    let good: Vec<_> = files.iter().copied().filter(|file| file.content.is_ok()).collect();
    findings.extend(driver(facts, &files));
    if facts.tools.net.driver().is_none_or(NetworkDriver::has_egress_policy) {
        findings.extend(restart(&good));
    }
    findings.extend(dry_run(&good));
}

fn shown<'a>(files: impl Iterator<Item = &'a PolicyFile>) -> String {
    files.map(|file| file.path.display().to_string()).collect::<Vec<_>>().join(" and ")
}

/// How to do without a file.
fn removal(file: &PolicyFile) -> String {
    let away = || format!("move {} away", file.path.display());
    file.setting.as_ref().map_or_else(away, UserSetting::removal)
}

fn content(file: &PolicyFile) -> Option<Finding> {
    let why = file.content.as_ref().err()?;
    let path = file.path.display();
    let seen = format!("{path} is not an egress policy: {why}");
    let no_start = "the daemon does not start without the policy";
    Some(
        Finding::fatal("egress-policy-file", seen, no_start)
            .fix(format!("fix the file, or create it if it is missing; to check it, run: rootlessctl policy check {path}"))
            .fix(format!("or {}", removal(file))),
    )
}

/// A network that there is none of is a finding of its own.
fn driver(facts: &Facts, files: &[&PolicyFile]) -> Option<Finding> {
    let net = facts.tools.net.driver().filter(|net| !net.has_egress_policy())?;
    let seen = format!(
        "the egress policy {} exists, but the network driver is {net}",
        shown(files.iter().copied())
    );
    let why = "only the network drivers gateway and gvisor-tap-vsock can enforce an egress policy, so the daemon does \
               not start";
    let removals: Vec<_> = files.iter().copied().map(removal).collect();
    Some(
        Finding::fatal("egress-policy-driver", seen, why)
            .fixes(gateway_in_force(facts, |ports| NetworkDriver::Gateway.goes_with(ports)))
            .fix(format!("or {}", removals.join(" and "))),
    )
}

fn restart(files: &[&PolicyFile]) -> Option<Finding> {
    let unused: Vec<_> = files.iter().copied().filter(|file| file.unused).collect();
    if unused.is_empty() {
        return None;
    }
    let seen = format!("the daemon runs without the egress policy {}", shown(unused.into_iter()));
    let why =
        "until you restart the daemon, containers can reach destinations that the policy denies";
    Some(
        Finding::class("egress-policy-restart", seen, why)
            .fix("restart the daemon, for example: systemctl --user restart docker"),
    )
}

fn dry_run(files: &[&PolicyFile]) -> Option<Finding> {
    let dry: Vec<_> =
        files.iter().copied().filter(|file| file.content == Ok(Mode::DryRun)).collect();
    if dry.is_empty() {
        return None;
    }
    let seen = format!("the egress policy {} is in dry-run mode", shown(dry.into_iter()));
    let why = "the gateway counts the traffic that the policy denies, but does not block it";
    Some(Finding::advisory("egress-policy-dry-run", seen, why).fix(
        "to see what would be denied, run: rootlessctl policy show; to enforce the policy, set mode = \"enforce\" in the file",
    ))
}

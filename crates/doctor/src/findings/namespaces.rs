//! Whether this user may make user namespaces, and who forbids it.

use std::path::Path;

use hostenv::shellwords::quoted;

use super::{Finding, Severity, Wish};
use crate::apparmor::Profile;
use crate::facts::Facts;
use crate::probe::{Outcome, Probe};
use crate::remedy::Remedy;
use crate::symptoms;

/// With fewer namespaces a busy host runs out.
const FEW_NAMESPACES: u64 = 1024;
/// Findings that make rootlesskit fail.
const CAUSES: [&str; 9] = [
    "userns-",
    "namespaces-",
    "apparmor-",
    "subid-",
    "newuidmap-",
    "no-new-privs",
    "container-caps",
    "home-",
    "kernel-old",
];
const WHY: &str = "the daemon and its containers run in a user namespace";

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    switches(facts, findings);
    let Outcome::Fails(text) = facts.outcome(Probe::Namespaces) else {
        procfs(facts, findings);
        return;
    };
    apparmor(facts, findings);
    // A second finding about the same failure would only confuse.
    if !explained(findings) {
        blocked(facts, text, findings);
    }
}

/// Whether a cause that is known explains that no namespace can be made.
pub(super) fn explained(findings: &[Finding]) -> bool {
    let is_cause = |finding: &Finding| {
        finding.severity == Severity::Fatal
            && CAUSES.iter().any(|cause| finding.code.starts_with(cause))
    };
    findings.iter().any(is_cause)
}

fn switches(facts: &Facts, findings: &mut Vec<Finding>) {
    let distro = &facts.distro;
    if let Some(value) = facts.host.userns_clone.filter(|value| *value != 1) {
        let key = "kernel.unprivileged_userns_clone";
        findings.push(
            Finding::fatal("userns-clone", format!("{key} is {value}"), WHY).remedy(distro.sysctl(
                "50-rootless.conf",
                key,
                "1",
            )),
        );
    }
    let key = "user.max_user_namespaces";
    let remedy = || distro.sysctl("51-rootless.conf", key, "28633");
    match facts.host.max_user_namespaces {
        Some(0) => findings
            .push(Finding::fatal("userns-none", format!("{key} is 0"), WHY).remedy(remedy())),
        Some(few) if few < FEW_NAMESPACES => findings.push(
            Finding::advisory(
                "userns-few",
                format!("{key} is {few}"),
                "browsers and other sandboxes also use user namespaces; if none is left, containers fail with \"no space left on device\"",
            )
            .remedy(remedy()),
        ),
        _ => {}
    }
    for kind in &facts.host.forbidden_namespaces {
        let key = hostenv::namespaces::limit(kind);
        findings.push(
            Finding::fatal(
                "namespaces-none",
                format!("{key} is 0"),
                "containers have namespaces of this kind",
            )
            .remedy(distro.sysctl(&format!("51-rootless-{kind}.conf"), &key, "28633")),
        );
    }
}

fn apparmor(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(rootlesskit) = &facts.tools.rootlesskit_real else { return };
    if !facts.host.apparmor_restricts {
        return;
    }
    let path = rootlesskit.to_string_lossy().into_owned();
    let seen = "kernel.apparmor_restrict_unprivileged_userns is 1";
    if facts.host.apparmor_profiles.contains(&path) {
        findings.push(
            Finding::fatal(
                "apparmor-not-loaded",
                format!("{seen}, and the profile for {path} in /etc/apparmor.d has no effect"),
                WHY,
            )
            .admin("load the AppArmor profiles", ["systemctl restart apparmor.service"])
            .forcible(),
        );
        return;
    }
    let finding = Finding::fatal(
        "apparmor-userns",
        format!("{seen}, and /etc/apparmor.d has no profile for {path}"),
        "AppArmor allows user namespaces only for programs with a profile that grants \"userns\"",
    )
    .forcible();
    findings.push(finding.remedy(profile(Path::new(&path), &facts.tools.apparmor)));
}

/// The commands that make the profile, or what is in their way.
fn profile(path: &Path, apparmor: &str) -> Remedy {
    let Some(profile) = Profile::of(path) else {
        return Remedy::said(
            "move rootlesskit to a path without special characters (an AppArmor profile cannot express this path)",
        );
    };
    let target = format!("/etc/apparmor.d/{}", profile.name);
    Remedy::admin(
        "allow rootlesskit to create user namespaces",
        [
            format!("cat > {target} <<'PROFILE'\n{}PROFILE", profile.text),
            "systemctl restart apparmor.service".to_owned(),
        ],
    )
    .and(Remedy::said(format!("or, instead of these commands: {apparmor} {}", quoted(path))))
}

fn blocked(facts: &Facts, text: &str, findings: &mut Vec<Finding>) {
    let said = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut finding =
        Finding::fatal("rootlesskit-fails", format!("`rootlesskit true` fails: {said}"), WHY)
            .forcible();
    match symptoms::find(text) {
        // Its remedies are those for other machines.
        Some(_) if facts.host.container.is_some() => {}
        Some(symptom) => {
            finding = finding.fix(format!("{}: {}", symptom.cause, symptom.fix));
        }
        None => {
            finding = finding
                .fix("run this to see the whole error: rootlesskit --debug true")
                .fix("compare this host with RootlessKit's requirements: https://rootlesscontaine.rs/getting-started/common/");
        }
    }
    if let Some(container) = &facts.host.container {
        let (mark, loosened) = (container.mark, container.loosened());
        finding = finding.fix(format!("this machine is a container ({mark}): {loosened}"));
    }
    findings.push(finding);
}

fn procfs(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Outcome::Fails(text) = facts.outcome(Probe::Proc)
        && !facts.host.forbids("pid")
    {
        let said = text.lines().last().unwrap_or_default();
        findings.push(
            Finding::class(
                "proc-masked",
                format!("a new /proc cannot be mounted: {said}"),
                "containers need a /proc of their own, and mounts hide parts of this host's /proc",
            )
            .fix(match &facts.host.container {
                Some(container) => container.loosened(),
                None => "if this machine is a container, start it with --privileged or --security-opt systempaths=unconfined",
            }),
        );
    }
}

//! The container around this one, if there is one.

use super::{Finding, Wish, namespaces};
use crate::facts::Facts;
use crate::probe::Probe;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let Some(container) = &facts.host.container else { return };
    let finding = Finding::advisory(
        "in-container",
        format!("this machine is a container ({})", container.mark),
        "seccomp filters, masked paths and missing devices can block what rootless Docker needs",
    );
    let works = facts.works(Probe::Namespaces) && facts.works(Probe::Proc);
    // A cause that is known has a remedy of its own, which may be all it takes, or which is this one.
    let loosened = container.loosened();
    let said = findings
        .iter()
        .flat_map(|finding| &finding.remedy.said)
        .any(|said| said.contains(loosened));
    findings.push(if works || said || namespaces::explained(findings) {
        finding
    } else {
        finding.fix(loosened)
    });
}

//! The container around this one, if there is one.

use super::{Finding, Wish, namespaces};
use crate::facts::Facts;
use crate::probe::Probe;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let Some(container) = &facts.host.container else { return };
    let finding = Finding::advisory(
        "in-container",
        format!("this host is a container ({container})"),
        "seccomp filters, masked paths and missing devices can block what rootless Docker needs",
    );
    let works = facts.works(Probe::Namespaces) && facts.works(Probe::Proc);
    // A cause that is known has a remedy of its own, which may be all it takes.
    findings.push(if works || namespaces::explained(findings) {
        finding
    } else {
        finding.fix(container.loosened())
    });
}

//! The doctor's findings as text, and the commands for the administrator as one block that can be pasted whole.

use doctor::findings::script::script;
use doctor::findings::{Finding, Severity};
use doctor::supervisor::last_lines;
use doctor::symptoms;
use hostenv::shellwords::quoted;

use crate::ui::Ui;

pub(crate) fn findings(ui: &mut Ui, findings: &[Finding]) {
    for finding in findings {
        let head = format!("{}: {}", finding.code, finding.seen);
        let mut lines = vec![format!("    why: {}", finding.why)];
        match finding.severity {
            Severity::Fatal => ui.error(&head),
            Severity::Class => ui.warning(&head),
            Severity::Advisory => {
                ui.info(&head);
                // Words that begin with "then" are about these.
                lines.extend(finding.remedy.admin.iter().map(|step| {
                    format!("    fix: sudo sh -euc {}", always_quoted(&step.commands.join("; ")))
                }));
            }
        }
        lines.extend(finding.remedy.said.iter().map(|text| format!("    fix: {text}")));
        for line in lines {
            if finding.severity == Severity::Advisory { ui.plain(&line) } else { ui.aside(&line) }
        }
    }
}

/// dockerd says why it ends in its last line; the launcher and rootlesskit add one each.
const LAST_WORDS: usize = 5;

/// Prints what is worse than advice in a line each, for those who did not ask.
pub(crate) fn summary(ui: &mut Ui, findings: &[Finding]) {
    let worse: Vec<_> =
        findings.iter().filter(|finding| finding.severity != Severity::Advisory).collect();
    for finding in &worse {
        ui.warning(&format!("{}: {}", finding.code, finding.seen));
    }
    if !worse.is_empty() {
        ui.warning("For explanations and fixes, run `dockerd-rootless-setuptool.sh check`");
    }
}

pub(crate) fn block(ui: &mut Ui, findings: &[Finding]) {
    let script = script(findings);
    let required = |f: &Finding| f.severity == Severity::Fatal && !f.remedy.admin.is_empty();
    if findings.iter().any(required) {
        ui.error("System requirements are missing. Have the administrator run these commands,");
        ui.error("then run this tool again.");
    } else if script.is_some() {
        ui.info("These commands are optional; they fix the warnings above:");
    }
    // Also where nothing but words helps: in a container, or on NixOS.
    if findings.iter().any(|f| f.about_iptables && f.severity == Severity::Fatal) {
        ui.error(
            "To continue without iptables (and without bridge networks), use --skip-iptables.",
        );
    }
    if let Some(script) = script {
        frame(ui, script.trim_end());
    }
}

/// Prints the end of a daemon's log, and what its messages mean.
pub(crate) fn log(ui: &mut Ui, text: &str) {
    for line in last_lines(text, LAST_WORDS).lines() {
        ui.aside(&format!("    {line}"));
    }
    if let Some(symptom) = symptoms::find(text) {
        ui.error(&format!("The log contains \"{}\": {}", symptom.token, symptom.cause));
        ui.error(&format!("  {}", symptom.fix));
    }
}

pub(crate) fn frame(ui: &mut Ui, text: &str) {
    for line in ["", "########## BEGIN ##########", text, "########## END ##########", ""] {
        ui.plain(line);
    }
}

/// In single quotes even where none are needed, as readers expect of `sh -c`.
fn always_quoted(text: &str) -> String {
    let quoted = quoted(text);
    if quoted == text { format!("'{text}'") } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_quoted_once() {
        assert_eq!(always_quoted("reboot"), "'reboot'");
        assert_eq!(always_quoted("a 'b'; c"), r"'a '\''b'\''; c'");
    }
}

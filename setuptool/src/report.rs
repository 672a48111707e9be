//! The doctor's findings as text, and the commands for the administrator as one block that can be pasted whole.

use std::fmt::Write as _;

use crate::doctor::{Finding, Severity, Step, quoted};
use crate::ui::Ui;

/// Prints all findings with everything that is known about them.
pub(crate) fn findings(ui: &mut Ui, findings: &[Finding]) {
    for finding in findings {
        let head = format!("{}: {}", finding.code, finding.seen);
        let mut lines = vec![format!("    why: {}", finding.why)];
        lines.extend(finding.remedy.said.iter().map(|text| format!("    fix: {text}")));
        match finding.severity {
            Severity::Fatal => ui.error(&head),
            Severity::Class => ui.warning(&head),
            Severity::Advisory => {
                ui.info(&head);
                lines.extend(finding.remedy.admin.iter().map(|step| {
                    format!("    fix: sudo sh -euc {}", always_quoted(&step.commands.join("; ")))
                }));
            }
        }
        for line in lines {
            if finding.severity == Severity::Advisory { ui.plain(&line) } else { ui.aside(&line) }
        }
    }
}

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

/// Prints the commands for the administrator, if there are any.
pub(crate) fn block(ui: &mut Ui, findings: &[Finding]) {
    let Some(script) = script(findings) else { return };
    let required = |f: &Finding| f.severity == Severity::Fatal && !f.remedy.admin.is_empty();
    if findings.iter().any(required) {
        ui.error("System requirements are missing. Have the administrator run these commands,");
        ui.error("then run this tool again.");
        if findings.iter().any(|f| f.about_iptables && f.severity == Severity::Fatal) {
            ui.error(
                "To continue without iptables (and without bridge networks), use --skip-iptables.",
            );
        }
    } else {
        ui.info("These commands are optional; they fix the warnings above:");
    }
    frame(ui, script.trim_end());
}

/// Prints a text that is meant to be pasted whole.
pub(crate) fn frame(ui: &mut Ui, text: &str) {
    for line in ["", "########## BEGIN ##########", text, "########## END ##########", ""] {
        ui.plain(line);
    }
}

/// The block itself. The here-document is quoted: nothing in it is expanded before root's shell reads it.
pub(crate) fn script(findings: &[Finding]) -> Option<String> {
    let mut steps: Vec<&Step> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.severity != Severity::Advisory) {
        for step in &finding.remedy.admin {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    if steps.is_empty() {
        return None;
    }
    let mut text = "sudo sh -eux <<'EOF'\n".to_owned();
    for step in steps {
        writeln!(text, "# {}", step.comment.replace('\n', " ")).unwrap_or_default();
        for command in &step.commands {
            writeln!(text, "{command}").unwrap_or_default();
        }
    }
    text.push_str("EOF\n");
    Some(text)
}

/// In single quotes even where none are needed, as readers expect of `sh -c`.
fn always_quoted(text: &str) -> String {
    let quoted = quoted(text);
    if quoted == text { format!("'{text}'") } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Remedy;

    #[test]
    fn the_block_is_for_root_and_has_each_step_once() {
        let step = || Remedy::admin("Install it", ["apt-get install -y x", "y 'a b' > /c"]);
        let findings = [
            Finding::fatal("a", "", "").remedy(step()),
            Finding::class("b", "", "").remedy(step()).remedy(Remedy::said("words")),
            Finding::advisory("c", "", "").remedy(Remedy::admin("no", ["no"])),
        ];
        assert_eq!(
            script(&findings).unwrap(),
            "sudo sh -eux <<'EOF'\n# Install it\napt-get install -y x\ny 'a b' > /c\nEOF\n"
        );
        assert_eq!(script(&findings[2..]), None);
    }

    #[test]
    fn advice_is_quoted_once() {
        assert_eq!(always_quoted("reboot"), "'reboot'");
        assert_eq!(always_quoted("a 'b'; c"), r"'a '\''b'\''; c'");
    }
}

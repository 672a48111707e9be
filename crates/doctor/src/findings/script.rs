//! The commands for the administrator, as one block that can be pasted whole.

use std::fmt::Write as _;

use super::{Finding, Severity};
use crate::remedy::Step;

/// The block itself. The here-document is quoted: nothing in it is expanded before root's shell reads it.
pub fn script(findings: &[Finding]) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::Remedy;

    #[test]
    fn the_block_is_for_root_and_has_each_step_once() {
        let step = || Remedy::admin("Install it", ["apt-get install -y x", "y 'a b' > /c"]);
        let findings = [
            Finding::fatal("a", "", "").remedy(step()),
            Finding::class("b", "", "").remedy(step()).fix("words"),
            Finding::advisory("c", "", "").admin("no", ["no"]),
        ];
        assert_eq!(
            script(&findings).unwrap(),
            "sudo sh -eux <<'EOF'\n# Install it\napt-get install -y x\ny 'a b' > /c\nEOF\n"
        );
        assert_eq!(script(&findings[2..]), None);
    }
}

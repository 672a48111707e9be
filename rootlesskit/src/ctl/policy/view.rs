//! The egress policy in force as a table.

use api::policy::{PolicyFile, PolicyRule, PolicyStatus};
use egress::Mode;

use crate::ctl::print::columns;
use crate::visible::visible;

/// Space behind the widest cell of a column.
const PADDING: usize = 2;
/// How many values of a list are shown; JSON has all.
const LISTED: usize = 4;
/// What a rule says that does not restrict something.
const ANY: &str = "any";

const HEADER: [&str; 9] =
    ["#", "FILE", "RULE", "ACTION", "FROM", "TO", "PROTOCOL", "PORTS", "MATCHED"];

type Row = [String; HEADER.len()];

/// The rules in the order in which they are tried, and what has to be known about the files.
pub(super) fn table(status: &PolicyStatus) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for file in &status.files {
        rows.extend(file.rules.iter().enumerate().map(|(index, rule)| row(file, index + 1, rule)));
        rows.push(default(file));
    }
    rows.iter_mut().flatten().for_each(|cell| *cell = visible(cell));
    let lines =
        columns(&rows, HEADER.len(), PADDING).into_iter().map(|line| line.trim_end().to_owned());
    lines.chain(notes(status)).map(|line| line + "\n").collect()
}

fn row(file: &PolicyFile, number: usize, rule: &PolicyRule) -> Row {
    let PolicyRule { rule, senders, matched } = rule;
    [
        number.to_string(),
        file.file.clone(),
        rule.name.clone(),
        rule.action.word().to_owned(),
        senders.clone().unwrap_or_else(|| ANY.to_owned()),
        list(rule.to.iter()),
        list(rule.protocols.iter().map(|protocol| protocol.word())),
        list(rule.ports.iter()),
        matched.to_string(),
    ]
}

fn default(file: &PolicyFile) -> Row {
    let cell = str::to_owned;
    [
        cell("-"),
        file.file.clone(),
        cell("default"),
        cell(file.default.word()),
        cell(ANY),
        cell(ANY),
        cell(ANY),
        cell(ANY),
        file.default_matched.to_string(),
    ]
}

fn list<T: ToString>(items: impl ExactSizeIterator<Item = T>) -> String {
    let more = items.len().saturating_sub(LISTED);
    let mut shown: Vec<_> = items.take(LISTED).map(|item| item.to_string()).collect();
    if shown.is_empty() {
        return ANY.to_owned();
    }
    if more > 0 {
        shown.push(format!("+{more}"));
    }
    shown.join(",")
}

fn notes(status: &PolicyStatus) -> Vec<String> {
    let mut notes = Vec::new();
    for file in &status.files {
        let name = visible(&file.file);
        if file.mode == Mode::DryRun {
            notes.push(format!(
                "note: {name} is in dry-run mode: it counts the connections that it would deny, but does not block them"
            ));
        }
        notes.extend(outdated(file));
    }
    if let Some(error) = &status.docker_error {
        notes.push(format!(
            "warning: Docker does not answer, so rules use its last list of containers; rules that allow a container do \
             not match containers that are missing from this list: {}",
            visible(error)
        ));
    }
    notes
}

/// The warning that a file, or who its rules are for, has changed, but not what is in force.
pub(super) fn outdated(file: &PolicyFile) -> Option<String> {
    let lines: Vec<_> = file.error.as_ref()?.lines().map(visible).collect();
    Some(format!(
        "warning: the current version of {} is not in force: {}",
        visible(&file.file),
        lines.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use egress::{Action, PortRange, Protocol, Rule, Target};

    use super::*;

    #[test]
    fn rules_stand_in_their_order_and_notes_below() {
        let rule = |name: &str, action, to: &[&str]| Rule {
            name: name.to_owned(),
            action,
            from: None,
            to: to.iter().map(|name| Target::Name((*name).to_owned())).collect(),
            protocols: Vec::new(),
            ports: Vec::new(),
        };
        let web = Rule {
            protocols: vec![Protocol::Tcp, Protocol::Icmp],
            ports: vec![PortRange { first: 443, last: 443 }, PortRange { first: 8000, last: 8010 }],
            ..rule("web", Action::Allow, &["a", "b", "c", "d", "e", "f"])
        };
        let senders = Some("container web".to_owned());
        let file = PolicyFile {
            file: "/e.toml".to_owned(),
            error: Some("egress policy /e.toml: line 3: no\nhint: yes".to_owned()),
            mode: Mode::DryRun,
            default: Action::Allow,
            rules: vec![
                PolicyRule { rule: web, senders, matched: 12 },
                PolicyRule { rule: rule("x\u{1b}", Action::Deny, &[]), senders: None, matched: 0 },
            ],
            default_matched: 7,
        };
        let docker_error = Some("cannot list".to_owned());
        let status = PolicyStatus { files: vec![file], docker_error, ..PolicyStatus::default() };
        let expected = "\
#  FILE     RULE     ACTION  FROM           TO          PROTOCOL  PORTS          MATCHED
1  /e.toml  web      allow   container web  a,b,c,d,+2  tcp,icmp  443,8000-8010  12
2  /e.toml  x\\u{1b}  deny    any            any         any       any            0
-  /e.toml  default  allow   any            any         any       any            7
note: /e.toml is in dry-run mode: it counts the connections that it would deny, but does not block them
warning: the current version of /e.toml is not in force: egress policy /e.toml: line 3: no
hint: yes
warning: Docker does not answer, so rules use its last list of containers; rules that allow a container do not match \
containers that are missing from this list: cannot list
";
        assert_eq!(table(&status), expected);
    }
}

use egress::{Action, Mode};

use super::*;
use crate::policy::{FileTraffic, PolicyTraffic, RuleTraffic};

#[test]
fn rules_of_the_egress_policy_are_samples_and_json() {
    let rule = |name: &str, action, matched| RuleTraffic { name: name.into(), action, matched };
    let file = FileTraffic {
        file: "/etc/e.toml".into(),
        mode: Mode::DryRun,
        rules: vec![rule("a \"b\"", Action::Deny, 3)],
        default: rule("default", Action::Allow, 4),
    };
    let stats = Stats { policy: Some(PolicyTraffic { files: vec![file] }), ..sample() };
    let text = openmetrics(&stats);
    let samples = check(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for line in [
        r#"rootlesskit_policy_matched_total{file="/etc/e.toml",rule="a \"b\"",action="deny"} 3"#,
        r#"rootlesskit_policy_matched_total{file="/etc/e.toml",rule="default",action="allow"} 4"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(samples.len(), check(&openmetrics(&sample())).unwrap().len() + 2);
    let json = to_json(&stats);
    let expected = r#""policy":{"files":[{"file":"/etc/e.toml","mode":"dry-run","rules":[{"name":"a \"b\"","action":"deny","matched":3}],"default":{"name":"default","action":"allow","matched":4}}]}}"#;
    assert!(json.ends_with(expected), "{json}");
    assert_eq!(from_json::<Stats>(json.as_bytes()).unwrap(), stats);
}

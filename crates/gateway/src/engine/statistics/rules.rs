//! How often rules of the egress policy decided.

use api::policy::{FileTraffic, PolicyTraffic, RuleTraffic};
use egress::{Action, Decision, Policies, Policy};

/// Counters for other policies than before. A rule that has the same name and action in the same file goes on counting.
pub(super) fn for_policies(policies: &Policies, before: &PolicyTraffic) -> PolicyTraffic {
    let files = policies.policies.iter().map(|policy| {
        let before = before.files.iter().find(|file| file.file == policy.file);
        for_policy(policy, before)
    });
    PolicyTraffic { files: files.collect() }
}

fn for_policy(policy: &Policy, before: Option<&FileTraffic>) -> FileTraffic {
    let counting = |name: &str, action: Action| {
        let known = before.into_iter().flat_map(|file| file.rules.iter().chain([&file.default]));
        let mut same = known.filter(|rule| rule.name == name && rule.action == action);
        let matched = same.next().map_or(0, |rule| rule.matched);
        RuleTraffic { name: name.to_owned(), action, matched }
    };
    FileTraffic {
        file: policy.file.clone(),
        mode: policy.mode,
        rules: policy.rules.iter().map(|rule| counting(&rule.name, rule.action)).collect(),
        default: counting("default", policy.default),
    }
}

/// Counts a decision about an attempt.
pub(super) fn count(traffic: &mut PolicyTraffic, decision: &Decision) {
    for (id, _) in &decision.verdicts {
        let Some(file) = traffic.files.get_mut(id.policy) else { continue };
        let rule = match id.rule {
            Some(rule) => file.rules.get_mut(rule),
            None => Some(&mut file.default),
        };
        if let Some(rule) = rule {
            rule.matched += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use egress::{Rule, RuleId};

    use super::*;

    #[test]
    fn rules_go_on_counting_by_name_and_action_when_the_policy_changes() {
        let rule = |name: &str, action| Rule {
            name: name.to_owned(),
            action,
            from: None,
            to: Vec::new(),
            protocols: Vec::new(),
            ports: Vec::new(),
        };
        let policies = |rules: &[&str], action| {
            let rules = rules.iter().map(|name| rule(name, action)).collect();
            let policy = Policy { file: "a.toml".to_owned(), rules, ..Policy::default() };
            Policies { policies: vec![policy], ..Policies::default() }
        };
        let mut traffic =
            for_policies(&policies(&["one", "two"], Action::Deny), &PolicyTraffic::default());
        for rule in [Some(0), Some(1), Some(1), None] {
            let verdicts = vec![(RuleId { policy: 0, rule }, Action::Deny)];
            count(&mut traffic, &Decision { verdicts, ..Decision::default() });
        }
        let matched = |traffic: &PolicyTraffic| {
            let file = &traffic.files[0];
            let rules = file.rules.iter().chain([&file.default]);
            rules.map(|rule| (rule.name.clone(), rule.matched)).collect::<Vec<_>>()
        };
        let expected = |of: &[(&str, u64)]| {
            of.iter().map(|(name, matched)| ((*name).to_owned(), *matched)).collect::<Vec<_>>()
        };
        assert_eq!(matched(&traffic), expected(&[("one", 1), ("two", 2), ("default", 1)]));
        let traffic = for_policies(&policies(&["new", "two"], Action::Deny), &traffic);
        assert_eq!(matched(&traffic), expected(&[("new", 0), ("two", 2), ("default", 1)]));
        let traffic = for_policies(&policies(&["two"], Action::Allow), &traffic);
        assert_eq!(matched(&traffic), expected(&[("two", 0), ("default", 1)]));
    }
}

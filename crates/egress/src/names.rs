//! Patterns of names: of hosts, and of containers.

/// Whether a host name in a rule covers this name. `*.example.org` covers all names below `example.org`, at any depth.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    let Some(end) = pattern.strip_prefix('*') else {
        return pattern.as_bytes().eq_ignore_ascii_case(name);
    };
    let above = name.len().checked_sub(end.len());
    above.is_some_and(|above| name[above..].eq_ignore_ascii_case(end.as_bytes()))
}

/// Whether a container's name in a rule is for this one. `*` stands for any run of characters.
pub(crate) fn glob(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let mut parts = tail.split('*');
    let last = parts.next_back().unwrap_or_default();
    // The first place of each part leaves most for those after it.
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As in the documentation: the labels from the end are the same, and there are more of them.
    fn covers_by_labels(pattern: &str, name: &str) -> bool {
        let labels = |name: &str| -> Vec<String> {
            name.to_lowercase().split('.').rev().map(str::to_owned).collect()
        };
        let name = labels(name.strip_suffix('.').unwrap_or(name));
        let mut pattern = labels(pattern);
        if pattern.last().is_some_and(|label| label == "*") {
            pattern.pop();
            return name.len() > pattern.len() && name.starts_with(&pattern);
        }
        name == pattern
    }

    /// A star is nothing, or one character and a star.
    fn glob_by_characters(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], [_, after @ ..]) => {
                glob_by_characters(rest, name) || glob_by_characters(pattern, after)
            }
            (['*', rest @ ..], []) => glob_by_characters(rest, name),
            ([a, rest @ ..], [b, after @ ..]) => a == b && glob_by_characters(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn host_names_are_covered_as_labels_tell(
            pattern in r"(\*\.)?[ab]{1,2}(\.[ab]{1,2}){0,2}",
            name in r"[abAB]{1,2}(\.[abAB]{1,2}){0,3}\.?",
            below in r"([ab]{1,2}\.){0,2}",
        ) {
            prop_assert_eq!(covers(&pattern, &name), covers_by_labels(&pattern, &name));
            let name = format!("{below}{}", pattern.strip_prefix("*.").unwrap_or(&pattern));
            prop_assert_eq!(covers(&pattern, &name), covers_by_labels(&pattern, &name));
        }

        #[test]
        fn a_star_in_the_name_of_a_container_is_any_run_of_characters(
            pattern in "[ab*]{0,8}",
            name in "[ab]{0,8}",
        ) {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = glob_by_characters(&characters(&pattern), &characters(&name));
            prop_assert_eq!(glob(&pattern, &name), expected);
        }

        #[test]
        fn no_pattern_and_no_name_make_the_matcher_panic(pattern in ".*", name in ".*") {
            covers(&pattern, &name);
            covers(&format!("*.{pattern}"), &name);
            let (around, longer) = (format!("*{pattern}*"), format!("a{pattern}"));
            prop_assert!(glob(&around, &longer));
        }
    }
}

//! What was probably meant by something that is wrong.

use std::ops::Range;

use super::values::{Problem, quoted};

/// What people write for everything.
const EVERYTHING: &[&str] = &["*", "any", "all"];
/// The keys for which nothing is everything.
const OPTIONAL: &[&str] = &["to", "protocol", "ports"];
/// The keys with lists of values that have no comma.
const LISTS: &[&str] = &["to", "protocol", "ports", "container", "address"];

/// Where a key belongs that is not known where it is.
pub(super) fn place(key: &str) -> Option<String> {
    match key {
        "mode" | "default" | "metadata" => Some(format!("write `{key}` above the first [[rule]]")),
        "container" | "label" | "network" | "address" => {
            Some(format!("write from = {{ {key} = … }} in a rule"))
        }
        "daemon" => Some("write from = { daemon = true } in a rule".to_owned()),
        _ => None,
    }
}

/// What `from` is for if it is text.
pub(super) fn from(text: Option<&str>) -> &'static str {
    match text {
        Some("daemon") => "write { daemon = true }",
        Some(text) if EVERYTHING.contains(&text) => "remove `from` to match all senders",
        _ => "write keys and values, such as { container = \"web\" }",
    }
}

/// A better hint about the text of a key, if there is one.
pub(super) fn value(key: &str, text: &str, problem: Problem) -> Problem {
    if key != "name"
        && let Some(problem) = typographic(text)
    {
        return problem;
    }
    let hint = if OPTIONAL.contains(&key) && EVERYTHING.contains(&text) {
        let all = match key {
            "to" => "destinations",
            "protocol" => "protocols",
            key => key,
        };
        Some(format!("remove `{key}` to match all {all}"))
    } else if LISTS.contains(&key) && text.contains(',') {
        Some(list(text))
    } else if key == "to" {
        port(text)
    } else {
        None
    };
    match hint {
        Some(hint) => Problem { hint, ..problem },
        None => problem,
    }
}

/// Some of the parts between commas as a list.
fn list(text: &str) -> String {
    const SHOWN: usize = 8;
    let is_number = |part: &str| part.len() <= 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    let part = |part: &str| if is_number(part) { part.to_owned() } else { quoted(part) };
    let mut parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut shown: Vec<_> = parts.by_ref().take(SHOWN).map(part).collect();
    shown.extend(parts.next().map(|_| "…".to_owned()));
    format!("write a list: [{}]", shown.join(", "))
}

/// A destination with a port.
fn port(text: &str) -> Option<String> {
    let (to, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let v6 = to.strip_prefix('[').and_then(|to| to.strip_suffix(']'));
    let to = v6.or_else(|| (!to.contains(':')).then_some(to))?;
    Some(format!("write {}, and the port as `ports = {port}`", quoted(to)))
}

/// A better problem than the one that the reader of TOML has at this place, if there is one.
pub(super) fn syntax(text: &str, at: &Range<usize>, problem: Problem) -> Problem {
    let (Some(before), Some(word), Some(after)) =
        (text.get(..at.start), text.get(at.clone()), text.get(at.end..))
    else {
        return problem;
    };
    let before = before.rsplit('\n').next().unwrap_or_default();
    let after = after.split('\n').next().unwrap_or_default();
    let line = [before, word, after].concat();
    if let Some(problem) = line.split('#').next().and_then(typographic) {
        return problem;
    }
    let is_word = word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_word && before.contains('=') && !after.trim_start().starts_with('=') {
        return Problem { hint: format!("write {} in double quotes", quoted(word)), ..problem };
    }
    problem
}

/// What word processors and web pages make of quotes and spaces.
fn typographic(text: &str) -> Option<Problem> {
    text.chars().find_map(|letter| match letter {
        '\u{2018}' | '\u{2019}' | '\u{201c}'..='\u{201f}' => {
            let problem = format!("{letter} is a typographic quote");
            Some(Problem::new(problem, "use a straight quote: \""))
        }
        '\u{a0}' => {
            let problem = "U+00A0 is a no-break space";
            Some(Problem::new(problem, "use an ordinary space"))
        }
        _ => None,
    })
}

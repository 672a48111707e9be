//! Texts of strangers for a terminal.

/// The text with control characters escaped, and those that change the direction of the text around them (UAX #9).
pub(crate) fn visible(text: &str) -> String {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::new();
    for c in text.chars() {
        if is_obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The same of each line, with an end of line behind each.
pub(crate) fn visible_lines(text: &str) -> String {
    text.lines().map(|line| visible(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gives_the_terminal_no_orders_and_keeps_its_lines() {
        assert_eq!(visible_lines("a\u{1b}[2J\nhint: b\u{202e}"), "a\\u{1b}[2J\nhint: b\\u{202e}\n");
    }
}

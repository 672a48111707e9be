//! Tables, as aligned lines for a terminal or in Markdown.

use std::fmt::Write as _;

/// Lays a table out. Columns for which `numbers` is true are right-aligned.
#[must_use]
pub fn table(
    head: &[&str],
    rows: &[Vec<String>],
    markdown: bool,
    numbers: impl Fn(usize) -> bool,
) -> String {
    let mut out = String::new();
    if markdown {
        let rules = (0..head.len()).map(|column| if numbers(column) { "--:" } else { "---" });
        let rules: Vec<&str> = rules.collect();
        let _ = writeln!(out, "| {} |\n|{}|", head.join(" | "), rules.join("|"));
        for row in rows {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
        return out;
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let plain = |row: &Vec<String>| row.iter().map(|cell| cell.replace('`', "")).collect();
    let rows: Vec<Vec<String>> = [&head].into_iter().chain(rows).map(plain).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let (left, right) = if numbers(column) { (&*pad, "") } else { ("", &*pad) };
            let _ = write!(line, "{left}{cell}{right}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// A number with commas between thousands.
#[must_use]
pub fn grouped(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    let (sign, text) = text.strip_prefix('-').map_or(("", &*text), |rest| ("-", rest));
    let (whole, rest) = text.split_once('.').map_or((text, ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let rows = [["a".to_owned(), "1".to_owned()], ["bbb".to_owned(), "1,000".to_owned()]];
        let rows = rows.map(Vec::from);
        let head = ["name", "n"];
        let text = table(&head, &rows, false, |column| column == 1);
        assert_eq!(text, "name      n\na         1\nbbb   1,000\n");
        let text = table(&head, &rows, true, |column| column == 1);
        assert_eq!(text, "| name | n |\n|---|--:|\n| a | 1 |\n| bbb | 1,000 |\n");
    }
}

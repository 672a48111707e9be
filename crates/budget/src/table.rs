//! The table of `docs/network.md`.

use std::fmt::Write as _;

use crate::{Budget, DataPath};

const LIMITS: [u64; 12] = [48, 64, 128, 180, 256, 512, 1024, 2048, 4096, 20_000, 65_536, 524_288];

/// What each limit allows, in Markdown.
pub fn table() -> String {
    let mut text = String::from(
        "| Limit | Published ports | TCP connections: inbound or outbound / in total | UDP flows: inbound or outbound | Pings | DNS queries | `builtin`: published ports / TCP connections |\n\
         |--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for limit in LIMITS {
        let budget = Budget::new(limit, DataPath::Gateway);
        let builtin = Budget::new(limit, DataPath::Parent);
        let shares = budget.shares;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {limit} | {} | {} / {} | {} to {} | {} | {} | {} / {} |",
            budget.ports,
            budget.connections(),
            shares.tcp / 2,
            shares.flows_kept,
            shares.flows.min(8192),
            shares.pings,
            shares.names,
            builtin.ports,
            builtin.connections(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// `UPDATE=1` writes the table anew.
    #[test]
    fn the_table_of_the_documentation_is_this() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/network.md");
        let old = std::fs::read_to_string(&path).unwrap();
        let (begin, end) =
            ("<!-- limits of open files -->\n", "<!-- end of limits of open files -->");
        let (before, rest) = old.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let new = format!("{before}{begin}\n{}\n{end}{after}", super::table());
        if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
            std::fs::write(&path, &new).unwrap();
        }
        let now = std::fs::read_to_string(&path).unwrap();
        assert!(now == new, "docs/network.md is not up to date (UPDATE=1 writes it)");
    }
}

//! Pages of `docs/` that say what a suite found.

use anyhow::{Context as _, Result, ensure};

use crate::paths;

/// Variable that has pages written, when it is `1`, instead of only compared.
const UPDATE: &str = "UPDATE";

/// Whether pages are written.
#[must_use]
pub fn updates() -> bool {
    std::env::var(UPDATE).is_ok_and(|value| value == "1")
}

/// Fails unless `docs/NAME` has this text.
///
/// # Errors
/// It does not; the message holds the lines that differ.
pub fn compare(name: &str, text: &str) -> Result<()> {
    let path = paths::docs().join(name);
    if updates() {
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let only = |these: &str, those: &str, mark: &str| {
        let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        lines.map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    ensure!(
        kept == text,
        "docs/{name} says otherwise\nhint: {UPDATE}=1 writes it anew; it says -, what was found is +:\n{}{}",
        only(&kept, text, "-"),
        only(text, &kept, "+")
    );
    Ok(())
}

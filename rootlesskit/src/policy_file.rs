//! Files of an egress policy: reading them.

use std::path::Path;

use anyhow::anyhow;
use egress::File;

/// Reads a file.
///
/// # Errors
/// It cannot be read, is too long, or is no policy. The error names the file, and the line if there is one.
pub(crate) fn read(path: &Path) -> anyhow::Result<File> {
    parse(path, bytes(path)?)
}

/// What is in a file.
///
/// # Errors
/// It cannot be read, or is too long. The error names the file.
pub(crate) fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let limit = u64::try_from(File::MAX_LENGTH).unwrap_or(u64::MAX);
    hostenv::file::read_at_most(path, limit).map_err(|e| {
        anyhow!(
            "cannot read the egress policy {}: {e}\nhint: create the file, correct its path, or check its permissions",
            path.display()
        )
    })
}

/// What was read from a file as a policy.
///
/// # Errors
/// It is no policy. The error names the file and the line.
pub(crate) fn parse(path: &Path, bytes: Vec<u8>) -> anyhow::Result<File> {
    let text = String::from_utf8(bytes).map_err(|e| {
        let valid = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow!(
            "egress policy {}: line {line}: bytes that are not UTF-8\nhint: save the file as UTF-8",
            path.display()
        )
    })?;
    File::parse(&text).map_err(|e| anyhow!("egress policy {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn errors_name_the_file_and_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.toml");
        let error = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            format!("{:#}", read(&path).unwrap_err())
        };
        let file = path.display();
        assert!(error(b"\nmode = 7\n").starts_with(&format!("egress policy {file}: line 2: ")));
        let text = error(b"\n\nmode = \"\xff\"");
        assert!(text.starts_with(&format!("egress policy {file}: line 3: bytes that")), "{text}");
        let text = error(&vec![b'#'; File::MAX_LENGTH + 1]);
        assert!(text.contains("e.toml: the file is larger than the limit"), "{text}");
        fs::write(&path, "default = \"deny\"\n[[rule]]\nname = \"a\"\naction = \"allow\"\n")
            .unwrap();
        assert_eq!(read(&path).unwrap().rules(), 1);
        fs::remove_file(&path).unwrap();
        let text = format!("{:#}", read(&path).unwrap_err());
        assert!(
            text.contains("No such file") && text.contains("\nhint: create the file"),
            "{text}"
        );
    }
}

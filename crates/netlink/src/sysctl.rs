//! Kernel parameters as files below `/proc/sys`, with the names of sysctl(8).

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::During;
use crate::{Error, Result};

/// Reads `key` (e.g. `net.ipv4.ip_forward`) below `root` (`/proc/sys`), without the final newline.
///
/// # Errors
/// A malformed key, or what reading the file gave; the text names key and path.
pub fn read(root: &Path, key: &str) -> Result<String> {
    let path = locate(root, key)?;
    let value = fs::read_to_string(&path)
        .during(|| format!("read sysctl {key} from {}", path.display()))?;
    Ok(value.trim_end().to_owned())
}

/// Writes `value` to `key` below `root` (`/proc/sys`).
///
/// # Errors
/// A malformed key, or what writing the file gave; the text names key, value and path.
pub fn write(root: &Path, key: &str, value: &str) -> Result<()> {
    let path = locate(root, key)?;
    // Not fs::write: a missing parameter must be an error also where `root` is an ordinary directory.
    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .during(|| format!("write sysctl {key}={value} to {}", path.display()))
}

/// Maps a key to its file: the first separator in it decides whether `.` or `/` separates the components, and the
/// other one then stands for itself swapped, so that `net.ipv4.conf.eth0/100.forwarding` can name link `eth0.100`
/// (sysctl(8), sysctl.d(5)).
fn locate(root: &Path, key: &str) -> Result<PathBuf> {
    let dotted = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'.');
    let relative = if dotted {
        key.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    } else {
        key.to_owned()
    };
    if relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
        let cause =
            io::Error::new(io::ErrorKind::InvalidInput, "not the name of a kernel parameter");
        return Err(Error::new(format!("sysctl {key:?}"), cause));
    }
    Ok(root.join(relative))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn relative(key: &str) -> String {
        locate(Path::new("/r"), key).unwrap().strip_prefix("/r").unwrap().display().to_string()
    }

    #[test]
    fn first_separator_decides() {
        assert_eq!(relative("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            relative("net/ipv4/conf/eth0.100/rp_filter"),
            "net/ipv4/conf/eth0.100/rp_filter"
        );
        assert_eq!(
            relative("net.ipv4.conf.eth0/100.rp_filter"),
            "net/ipv4/conf/eth0.100/rp_filter"
        );
    }

    #[test]
    fn reads_and_writes_and_names_everything() {
        let root = tempfile::tempdir().unwrap();
        let missing = write(root.path(), "net.x", "1").unwrap_err();
        let path = root.path().join("net/x");
        assert_eq!(
            missing.to_string(),
            format!(
                "write sysctl net.x=1 to {}: No such file or directory (os error 2)",
                path.display()
            )
        );
        fs::create_dir(root.path().join("net")).unwrap();
        fs::write(&path, "10\n").unwrap();
        assert_eq!(read(root.path(), "net.x").unwrap(), "10");
        write(root.path(), "net.x", "2").unwrap();
        assert_eq!(read(root.path(), "net.x").unwrap(), "2");
    }

    proptest! {
        #[test]
        fn no_key_leaves_the_root(key in "[./a-z]{0,12}") {
            if let Ok(path) = locate(Path::new("/r"), &key) {
                prop_assert!(path.starts_with("/r") && path != Path::new("/r"));
                prop_assert!(!path.components().any(|part| part.as_os_str() == ".."));
            }
        }
    }
}

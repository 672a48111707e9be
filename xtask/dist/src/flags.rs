//! The flags that programs are compiled with.

use std::path::Path;

/// What rustc gets: flags of the environment, a static C library, and the paths to be replaced in the output. With
/// `--target` cargo gives them to the programs only, not to build scripts and macros.
pub(crate) fn rust_flags(paths: &[(&Path, &str)]) -> String {
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
    flags.push("-Ctarget-feature=+crt-static".to_owned());
    for (from, to) in paths {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    flags.join("\u{1f}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_machine_are_replaced_in_order() {
        let flags = rust_flags(&[(Path::new("/a"), "/source"), (Path::new("/a/b"), "/build")]);
        assert!(flags.contains("+crt-static\u{1f}--remap-path-prefix=/a=/source\u{1f}"), "{flags}");
        assert!(flags.ends_with("--remap-path-prefix=/a/b=/build"), "{flags}");
    }
}

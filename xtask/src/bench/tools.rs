//! The programs of others: which ones are used, from where, and in a place where an ordinary user can run them.
//!
//! What is not installed is taken from the root file systems of the test hosts, if those were made. A program in
//! there that needs a newer C library than this machine has runs through that file system's own loader.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::host;

/// What every program built by Go carries, and nothing else does.
const GO: &[u8] = b"\xff Go buildinf:";

/// Debian releases of the test hosts, the newest first.
const RELEASES: [&str; 3] = ["sid", "trixie", "bookworm"];

/// A program that is ready to be run by the user of the benchmark.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) path: PathBuf,
    /// Version and origin, for the report.
    pub(super) what: String,
}

/// The root file systems of the test hosts.
fn roots() -> Vec<PathBuf> {
    let Ok(base) = host::target().map(|target| target.join("testhosts")) else { return Vec::new() };
    let names = fs::read_dir(&base).into_iter().flatten().flatten();
    let dirs: Vec<PathBuf> = names.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    let of = |release: &&str| {
        let start = format!("{release}-");
        let name = |dir: &PathBuf| dir.file_name().map(|name| name.to_string_lossy().into_owned());
        dirs.iter().find(|dir| name(dir).is_some_and(|name| name.starts_with(&start))).cloned()
    };
    RELEASES.iter().filter_map(of).collect()
}

/// A path as the report shows it: without this checkout's own place.
fn shown(path: &Path) -> String {
    let workspace = host::workspace().unwrap_or_default();
    path.strip_prefix(workspace).unwrap_or(path).display().to_string()
}

/// The first line of `PROGRAM --version`, if it runs here.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next()?.trim().to_owned();
    output.status.success().then_some(line)
}

fn is_go(program: &Path) -> bool {
    fs::read(program).is_ok_and(|bytes| bytes.windows(GO.len()).any(|window| window == GO))
}

fn place(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Our own program, copied to `to`.
pub(super) fn ours(given: Option<&Path>, to: &Path) -> Result<Tool> {
    let built = host::target()?.join("release/rootlesskit");
    let from = given.map_or(built, Path::to_owned);
    place(&from, to)?;
    let version = version(to).with_context(|| format!("{} does not run", from.display()))?;
    Ok(Tool { path: to.to_owned(), what: format!("{version}, {}", shown(&from)) })
}

/// The Go program, copied to `to`.
pub(super) fn theirs(given: Option<&Path>, to: &Path) -> Result<Tool> {
    let candidates: Vec<PathBuf> = match given {
        Some(path) => vec![path.to_owned()],
        None => {
            let installed = host::find("rootlesskit").filter(|path| is_go(path));
            let cached = roots().into_iter().map(|root| root.join("usr/bin/rootlesskit"));
            installed.into_iter().chain(cached).collect()
        }
    };
    for from in &candidates {
        if let Some(version) = version(from) {
            ensure!(
                is_go(from),
                "{} is not built by Go, so it is not the program to compare with\n\
                 hint: --theirs PATH names an installed RootlessKit",
                from.display()
            );
            place(from, to)?;
            return Ok(Tool { path: to.to_owned(), what: format!("{version}, {}", shown(from)) });
        }
    }
    bail!(
        "no RootlessKit to compare with: {}\n\
         hint: --theirs PATH names one; Debian has it in the package rootlesskit, and `cargo xtask test` brings it \
         in its test hosts",
        if given.is_some() { "the given one does not run" } else { "it is not installed" }
    )
}

/// Whether a RootlessKit has the network driver `none`, which came after 2.0.
pub(super) fn has_none(program: &Path) -> Result<bool> {
    let help = host::quietly(Command::new(program).arg("--help").stdin(Stdio::null()))?;
    let drivers = help.lines().find(|line| line.trim_start().starts_with("--net value"));
    Ok(drivers.is_some_and(|line| line.contains(" none,")))
}

/// slirp4netns(1), which [`host::ensure_programs`] has made sure of, under `bin`.
pub(super) fn slirp4netns(bin: &Path) -> Result<Tool> {
    let from = host::find("slirp4netns").context("slirp4netns has gone")?;
    let path = bin.join("slirp4netns");
    symlink(&from, &path)?;
    let version = version(&path).context("slirp4netns does not run")?;
    Ok(Tool { path, what: format!("{version}, {}", shown(&from)) })
}

/// pasta(1) under `bin`, if there is one new enough for rootlesskit.
pub(super) fn pasta(bin: &Path) -> Result<Option<Tool>> {
    let path = bin.join("pasta");
    let installed = host::find("pasta").into_iter();
    let roots = roots();
    for from in installed.chain(roots.iter().map(|root| root.join("usr/bin/pasta"))) {
        if let Some(version) = version(&from).filter(|version| !version.contains("unknown")) {
            place(&from, &path)?;
            let fast = from.with_file_name("pasta.avx2");
            if fast.exists() {
                // pasta replaces itself by this one where the processor can run it.
                place(&fast, &bin.join("pasta.avx2"))?;
            }
            return Ok(Some(Tool { path, what: format!("{version}, {}", shown(&from)) }));
        }
    }
    for root in roots {
        if let Some(version) = through_loader(&root, &path)? {
            let what = format!("{version}, of {} through that one's loader", shown(&root));
            return Ok(Some(Tool { path, what }));
        }
    }
    Ok(None)
}

/// Makes `to` a script that runs the root file system's pasta with its own loader and C library.
fn through_loader(root: &Path, to: &Path) -> Result<Option<String>> {
    let folders = fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
    for folder in folders.map(|entry| entry.path()).filter(|path| path.join("libc.so.6").exists()) {
        let files = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let name =
            |file: &PathBuf| file.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut loaders =
            files.filter(|file| name(file).is_some_and(|name| name.starts_with("ld-linux")));
        let Some(loader) = loaders.next() else { continue };
        let library = to.with_file_name("library");
        place(&loader, &library.join("loader"))?;
        place(&folder.join("libc.so.6"), &library.join("libc.so.6"))?;
        // The variant for newer processors, which the loader would hide from it.
        let fast = root.join("usr/bin/pasta.avx2");
        let avx2 = fs::read_to_string("/proc/cpuinfo")?.contains(" avx2 ");
        let program = if avx2 && fast.exists() { fast } else { root.join("usr/bin/pasta") };
        place(&program, &library.join("pasta"))?;
        let dir = library.display();
        let script = format!(
            "#!/bin/sh\nexec {dir}/loader --library-path {dir} --argv0 pasta {dir}/pasta \"$@\"\n"
        );
        fs::write(to, script)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
        if let Some(version) = version(to) {
            return Ok(Some(version));
        }
        fs::remove_file(to)?;
    }
    Ok(None)
}

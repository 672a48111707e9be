//! The programs of others: which ones are used, from where, and in a place where an ordinary user can run them.
//!
//! What is not installed is taken from the root file systems of the test hosts, if those were made. A program in
//! there that needs a newer C library than this machine has runs through that file system's own loader.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use xtask_support::{cargo, command, host};

/// What every program built by Go carries, and nothing else does.
const GO: &[u8] = b"\xff Go buildinf:";

/// Debian releases of the test hosts, the newest first.
const RELEASES: [&str; 3] = ["sid", "trixie", "bookworm"];

/// A program that is ready to be run by the user of the benchmark.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) path: PathBuf,
    /// The first line of `--version`.
    pub(crate) version: String,
    /// Where it comes from.
    pub(crate) origin: String,
}

impl Tool {
    /// Version and origin, for the report.
    pub(crate) fn what(&self) -> String {
        format!("{}, {}", self.version, self.origin)
    }

    /// The version without the program's name.
    pub(crate) fn number(&self) -> &str {
        self.version.rsplit_once("version ").map_or(&self.version, |(_, number)| number)
    }
}

/// The root file systems of the test hosts.
fn roots() -> Vec<PathBuf> {
    let Ok(base) = cargo::target().map(|target| target.join("testhosts")) else {
        return Vec::new();
    };
    let names = fs::read_dir(&base).into_iter().flatten().flatten();
    let dirs = names.map(|entry| entry.path()).filter(|path| path.is_dir());
    // One that is being made ends in .part.
    let mut dirs: Vec<PathBuf> = dirs.filter(|path| path.extension().is_none()).collect();
    let made = |dir: &PathBuf| fs::metadata(dir).and_then(|meta| meta.modified()).ok();
    dirs.sort_by_key(|dir| std::cmp::Reverse(made(dir)));
    let of = |release: &&str| {
        let start = format!("{release}-");
        let name = |dir: &PathBuf| dir.file_name().map(|name| name.to_string_lossy().into_owned());
        dirs.iter().find(|dir| name(dir).is_some_and(|name| name.starts_with(&start))).cloned()
    };
    RELEASES.iter().filter_map(of).collect()
}

/// A path as the report shows it: without this checkout's own place.
fn shown(path: &Path) -> String {
    let workspace = cargo::workspace().unwrap_or_default();
    path.strip_prefix(workspace).unwrap_or(path).display().to_string()
}

/// The first line of `PROGRAM --version`, if it runs here.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next()?.trim().to_owned();
    output.status.success().then_some(line)
}

/// Whether a program is built by Go.
pub(crate) fn is_go(program: &Path) -> bool {
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
pub(crate) fn ours(given: Option<&Path>, to: &Path) -> Result<Tool> {
    let built = cargo::programs("release")?.join("rootlesskit");
    let from = given.map_or(built, Path::to_owned);
    place(&from, to)?;
    let version = version(to).with_context(|| format!("{} does not run", from.display()))?;
    Ok(Tool { path: to.to_owned(), version, origin: shown(&from) })
}

/// The rootlesskit to compare with, copied to `to`: the given program, or the one in a given directory. Otherwise the Go
/// program that is installed, or a test host's.
pub(crate) fn theirs(given: Option<&Path>, to: &Path) -> Result<Tool> {
    if let Some(given) = given {
        return given_program("--against", given, to);
    }
    let installed = host::find("rootlesskit").filter(|path| is_go(path));
    let cached = roots().into_iter().map(|root| root.join("usr/bin/rootlesskit"));
    for from in installed.into_iter().chain(cached) {
        if let Some(version) = version(&from).filter(|_| is_go(&from)) {
            place(&from, to)?;
            return Ok(Tool { path: to.to_owned(), version, origin: shown(&from) });
        }
    }
    bail!(
        "no RootlessKit to compare with: it is not installed\n\
         hint: --against PATH names one; Debian has it in the package rootlesskit, and `cargo xtask test` brings it \
         in its test hosts"
    )
}

/// The rootlesskit that an option names, with the rootlessctl beside it, copied to `to`.
pub(crate) fn given_program(option: &str, given: &Path, to: &Path) -> Result<Tool> {
    let from = if given.is_dir() { given.join("rootlesskit") } else { given.to_owned() };
    let hint = format!(
        "hint: {option} PATH names a rootlesskit, or a directory that holds rootlesskit and rootlessctl"
    );
    let version = version(&from)
        .with_context(|| format!("{} --version does not run\n{hint}", from.display()))?;
    ensure!(
        version.contains("rootlesskit"),
        "{} is no rootlesskit: its --version prints {version:?}\n{hint}",
        from.display()
    );
    place(&from, to)?;
    let control = from.with_file_name("rootlessctl");
    if control.is_file() {
        place(&control, &to.with_file_name("rootlessctl"))?;
    }
    Ok(Tool { path: to.to_owned(), version, origin: shown(&from) })
}

/// Whether a RootlessKit has the network driver `none`, which came after 2.0.
pub(crate) fn has_none(program: &Path) -> Result<bool> {
    let help = command::quietly(Command::new(program).arg("--help").stdin(Stdio::null()))?;
    let drivers = help.lines().find(|line| line.trim_start().starts_with("--net value"));
    Ok(drivers.is_some_and(|line| line.contains(" none,")))
}

/// Whether a RootlessKit has the network driver `gvisor-tap-vsock`, which came with 3.0.
pub(crate) fn has_gvisor(program: &Path) -> Result<bool> {
    let help = command::quietly(Command::new(program).arg("--help").stdin(Stdio::null()))?;
    let drivers = help.lines().find(|line| line.trim_start().starts_with("--net value"));
    Ok(drivers.is_some_and(|line| line.contains("gvisor-tap-vsock")))
}

/// slirp4netns(1), which [`host::ensure_programs`] has made sure of, under `bin`.
pub(crate) fn slirp4netns(bin: &Path) -> Result<Tool> {
    let from = host::find("slirp4netns").context("slirp4netns has gone")?;
    let path = bin.join("slirp4netns");
    symlink(&from, &path)?;
    let version = version(&path).context("slirp4netns does not run")?;
    Ok(Tool { path, version, origin: shown(&from) })
}

/// pasta(1) under `bin`, if there is one new enough for rootlesskit.
pub(crate) fn pasta(bin: &Path) -> Result<Option<Tool>> {
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
            return Ok(Some(Tool { path, version, origin: shown(&from) }));
        }
    }
    // The variant for newer processors, which the loader would hide from it.
    let avx2 = fs::read_to_string("/proc/cpuinfo")?.contains(" avx2 ");
    for root in roots {
        let fast = root.join("usr/bin/pasta.avx2");
        for program in [fast, root.join("usr/bin/pasta")] {
            if program.exists() && (avx2 || program.extension().is_none()) {
                let tool = through_loader(&root, &program, &path)?;
                if let Some(tool) = tool.filter(|tool| !tool.version.starts_with("pasta unknown")) {
                    return Ok(Some(tool));
                }
            }
        }
    }
    Ok(None)
}

/// The programs that only the networks need.
#[derive(Debug, Clone)]
pub(crate) struct NetTools {
    pub(crate) slirp4netns: Tool,
    /// Docker's own, of whichever release is the newest.
    pub(crate) docker_proxy: Option<Tool>,
}

impl NetTools {
    /// Puts them under `bin`. `installed` is the machine's own slirp4netns.
    pub(crate) fn find(bin: &Path, installed: &Tool) -> Result<Self> {
        let bin = bin.join("net");
        let slirp4netns = newest("usr/bin/slirp4netns", &bin.join("slirp4netns"))?;
        let proxy = bin.join("docker-proxy");
        let mut docker_proxy = newest("usr/sbin/docker-proxy", &proxy)?;
        if let Some(from) = host::find("docker-proxy").filter(|_| docker_proxy.is_none()) {
            // Those before 26 do not say which they are.
            let version = version(&from).unwrap_or_else(|| "docker-proxy before 26".to_owned());
            place(&from, &proxy)?;
            docker_proxy = Some(Tool { path: proxy, version, origin: shown(&from) });
        }
        Ok(Self { slirp4netns: slirp4netns.unwrap_or_else(|| installed.clone()), docker_proxy })
    }
}

/// A program of the newest test host that has one which runs here.
fn newest(program: &str, to: &Path) -> Result<Option<Tool>> {
    for root in roots() {
        let from = root.join(program);
        if !from.exists() {
            continue;
        }
        if let Some(version) = version(&from) {
            place(&from, to)?;
            return Ok(Some(Tool { path: to.to_owned(), version, origin: shown(&from) }));
        }
        if let Some(tool) = through_loader(&root, &from, to)? {
            return Ok(Some(tool));
        }
    }
    Ok(None)
}

/// Makes `to` a script that runs a root file system's program with that one's loader and libraries.
fn through_loader(root: &Path, program: &Path, to: &Path) -> Result<Option<Tool>> {
    let folders = fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
    for folder in folders.map(|entry| entry.path()).filter(|path| path.join("libc.so.6").exists()) {
        let files = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let name =
            |file: &PathBuf| file.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut loaders =
            files.filter(|file| name(file).is_some_and(|name| name.starts_with("ld-linux")));
        let Some(loader) = loaders.next() else { continue };
        let Some(libraries) = libraries(&loader, &folder, program)? else { continue };
        let library = to.with_extension("library");
        place(&loader, &library.join("loader"))?;
        for from in libraries {
            let name = from.file_name().context("a library without a name")?;
            place(&from, &library.join(name))?;
        }
        place(program, &library.join("program"))?;
        let (dir, own) = (library.display(), to.file_name().context("no name")?.to_string_lossy());
        let script = format!(
            "#!/bin/sh\nexec {dir}/loader --library-path {dir} --argv0 {own} {dir}/program \"$@\"\n"
        );
        fs::write(to, script)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
        if let Some(version) = version(to) {
            let origin = format!("of {} through that one's loader", shown(root));
            return Ok(Some(Tool { path: to.to_owned(), version, origin }));
        }
        fs::remove_file(to)?;
    }
    Ok(None)
}

/// What a loader would load for a program, all from one folder (`--list`, ld.so(8)).
fn libraries(loader: &Path, folder: &Path, program: &Path) -> Result<Option<Vec<PathBuf>>> {
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(folder).arg("--list").arg(program).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("running {}", loader.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| {
        let path = line.split(" => ").nth(1)?.split(" (").next()?;
        Some(PathBuf::from(path)).filter(|path| path.starts_with(folder))
    });
    Ok(output.status.success().then(|| paths.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a program of this name that prints `version`.
    fn with_program(name: &str, version: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\necho {version}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    // One test: a program that another thread forks while it is written cannot be run ("text file busy").
    #[test]
    fn against_takes_a_program_or_its_directory_and_refuses_what_is_no_rootlesskit() {
        let folder = with_program("rootlesskit", "rootlesskit version 3.1.4");
        fs::write(folder.path().join("rootlessctl"), "").unwrap();
        for given in [folder.path().to_owned(), folder.path().join("rootlesskit")] {
            let bin = tempfile::tempdir().unwrap();
            let tool = theirs(Some(&given), &bin.path().join("theirs/rootlesskit")).unwrap();
            assert_eq!(tool.number(), "3.1.4");
            assert!(tool.path.is_file() && bin.path().join("theirs/rootlessctl").is_file());
        }
        let bin = tempfile::tempdir().unwrap();
        let refused = |given: &Path| {
            let error = theirs(Some(given), &bin.path().join("rootlesskit")).unwrap_err();
            error.to_string()
        };
        let other = with_program("slirp4netns", "slirp4netns version 1.3.3");
        let error = refused(&other.path().join("slirp4netns"));
        assert!(error.contains("prints \"slirp4netns version 1.3.3\""), "{error}");
        let error = refused(other.path());
        assert!(error.contains("rootlesskit --version does not run\nhint: "), "{error}");
    }
}

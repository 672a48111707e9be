//! Programs that only a few scenarios need, from the packages of the box's release: they are put into that box, not into
//! every root file system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use tests::{Context, Result, Suite, TestBox, ensure};

/// The suite of this machine.
pub(crate) fn suite() -> Result<Suite> {
    let text = fs::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.unwrap_or_default().trim_matches('"').to_owned();
    Suite::from_name(&name)
        .with_context(|| format!("this machine is {name:?}, for which there is no test host"))
}

/// Unpacks packages into a box. A word that ends with `*` stands for all names that begin so among what the package before
/// it depends on: names of libraries hold their version.
pub(crate) fn unpack(b: &TestBox, packages: &[&str]) -> Result<()> {
    let cache = tests::paths::cache()?.join(format!("packages-{}", b.suite().name()));
    fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let apt = Apt::of(b.suite(), &cache)?;
    let mut names: Vec<String> = Vec::new();
    for word in packages {
        match word.strip_suffix('*') {
            None => names.push((*word).to_owned()),
            Some(prefix) => {
                let last = names.last().cloned().unwrap_or_default();
                let mut depends = apt.dependencies(&last)?;
                depends.retain(|name| name.starts_with(prefix));
                ensure!(!depends.is_empty(), "{last} depends on nothing that begins with {prefix}");
                names.extend(depends);
            }
        }
    }
    for name in names {
        let file = match stored(&cache, &name)? {
            Some(file) => file,
            None => apt.download(&cache, &name)?,
        };
        // The box has links in place of /bin and /lib, which dpkg-deb -x would replace.
        let line = "dpkg-deb --fsys-tarfile \"$0\" | tar -x --keep-directory-symlink -C \"$1\"";
        let root = b.path("/");
        let status = Command::new("sh").args(["-c", line]).arg(&file).arg(root).status()?;
        ensure!(status.success(), "unpacking {}: {status}", file.display());
    }
    Ok(())
}

/// apt with the lists of a suite: those of this machine, or some of our own from the same mirror.
struct Apt {
    options: Vec<String>,
    /// What the lists were made from.
    source: PathBuf,
    suite: Suite,
}

impl Apt {
    fn of(wanted: Suite, cache: &Path) -> Result<Self> {
        let mut apt =
            Self { options: Vec::new(), source: cache.join("sources.list"), suite: wanted };
        if wanted == suite()? {
            return Ok(apt);
        }
        for (name, value) in [
            ("Dir::Etc::SourceList", apt.source.display().to_string()),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            // What this machine has installed is of another suite.
            ("Dir::State::Status", "/dev/null".to_owned()),
            ("Dir::State::Lists", cache.join("lists").display().to_string()),
            ("Dir::Cache", cache.join("apt").display().to_string()),
            ("Acquire::Languages", "none".to_owned()),
            // Mirrors that are snapshots serve Release files whose validity has passed.
            ("Acquire::Check-Valid-Until", "false".to_owned()),
        ] {
            apt.options.extend(["-o".to_owned(), format!("{name}={value}")]);
        }
        if !apt.source.exists() {
            fs::create_dir_all(cache.join("lists/partial"))?;
            fs::create_dir_all(cache.join("apt/archives/partial"))?;
            apt.update()?;
        }
        Ok(apt)
    }

    /// Fetches the lists. The file that lists of our own are made from is there when they are.
    fn update(&self) -> Result<()> {
        if self.options.is_empty() {
            return ended_well(&mut self.command("apt-get", &["update"])).map(drop);
        }
        let part = self.source.with_extension("part");
        let (site, keys) = (tests::mirror()?, "/usr/share/keyrings/debian-archive-keyring.gpg");
        let name = self.suite.name();
        fs::write(&part, format!("deb [signed-by={keys}] {site} {name} main\n"))?;
        let source = format!("Dir::Etc::SourceList={}", part.display());
        // Without the second option old lists that could not be replaced are but a warning.
        let args = ["-o", &source, "-o", "APT::Update::Error-Mode=any", "update"];
        ended_well(&mut self.command("apt-get", &args))?;
        Ok(fs::rename(&part, &self.source)?)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(args);
        command
    }

    /// What a command prints, with new lists if it fails with those that are there: the suite may have moved on since
    /// they were fetched.
    fn ask(&self, mut command: Command) -> Result<String> {
        ended_well(&mut command).or_else(|before| {
            self.update().context(before)?;
            ended_well(&mut command)
        })
    }

    fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let text = self.ask(self.command("apt-cache", &["depends", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    fn download(&self, cache: &Path, name: &str) -> Result<PathBuf> {
        // To a place of its own first: a file that apt has not finished must not pass for a package.
        let part = tempfile::tempdir_in(cache)?;
        let mut fetch = self.command("apt-get", &["download", "-q", name]);
        fetch.current_dir(part.path());
        let said = self.ask(fetch)?;
        let file =
            stored(part.path(), name)?.with_context(|| format!("no package came: {said}"))?;
        let kept = cache.join(file.file_name().unwrap_or_default());
        fs::rename(&file, &kept)?;
        Ok(kept)
    }
}

/// What a command prints that ends well.
fn ended_well(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn stored(cache: &Path, name: &str) -> Result<Option<PathBuf>> {
    let prefix = format!("{name}_");
    let files = fs::read_dir(cache)?.flatten().map(|entry| entry.path());
    Ok(files.into_iter().find(|path| {
        path.extension().is_some_and(|kind| kind == "deb")
            && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
    }))
}

//! The templates for distributions and the scripts beside them: complete, and without what a linter finds.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Context as _, Result, ensure, need};

/// The folder `packaging` of the sources.
fn packaging() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("the workspace")?.join("packaging"))
}

/// Runs a command of the machine and gives what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    Ok(text)
}

/// All files below a folder.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn shellcheck(shell: &str, file: &Path, but: &str) -> Result<()> {
    let mut command = Command::new("shellcheck");
    command.args(["--norc", "--shell", shell]).args(["--exclude", but]).arg(file);
    run(&mut command).map(drop)
}

/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// What other programs read and set: variables of makepkg, abuild and openrc-run.
const OTHERS: &str = "SC2034,SC2154";

#[test]
fn scripts_are_what_every_posix_shell_understands() -> Result<()> {
    need!(Path::new("/usr/bin/shellcheck").exists(), "shellcheck (package shellcheck)");
    let packaging = packaging()?;
    let mut checked = 0;
    for file in
        files(&packaging)?.into_iter().filter(|file| file.extension() == Some("sh".as_ref()))
    {
        shellcheck("sh", &file, "SC0000")?;
        run(Command::new("sh").arg("-n").arg(&file))?;
        let lines = fs::read_to_string(&file)?;
        // A script that comes over a network does nothing before its end is there.
        ensure!(
            file.ends_with("prepare.sh") || lines.ends_with("\nmain \"$@\"\n"),
            "{}",
            file.display()
        );
        checked += 1;
    }
    assert_eq!(checked, 4, "install.sh, dockerd-entrypoint.sh, prepare.sh, fill.sh");
    Ok(())
}

#[test]
fn the_entry_point_passes_a_policy_that_is_a_symlink_to_nowhere() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    // What looks at this machine, or changes it, does not run.
    for (name, text) in [
        ("id", "[ $1 = -un ] && echo user || echo 1000"),
        ("rootlesskit", "printf '%s\\n' \"$@\""),
        ("cat", "echo 1"),
        ("find", ""),
        ("grep", ""),
        ("iptables", ""),
    ] {
        let file = at(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    let started = || {
        let mut command = Command::new("sh");
        command.arg(packaging()?.join("dind/dockerd-entrypoint.sh")).arg("dockerd").env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", scratch.path().display()));
        command.env("HOME", at("home")).env("XDG_RUNTIME_DIR", at("run"));
        run(command.env("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gateway"))
    };
    let policy = at("home/.config/docker-rootless/egress.toml");
    let flag = format!("--egress-policy={}\n", policy.display());
    let without = started()?;
    ensure!(without.contains("--net=gateway\n") && !without.contains(&flag), "{without}");
    fs::create_dir_all(policy.parent().context("its folder")?)?;
    symlink("nowhere", &policy)?;
    let with = started()?;
    ensure!(with.contains(&flag), "{with}");
    Ok(())
}

#[test]
fn templates_for_distributions_are_whole() -> Result<()> {
    need!(Path::new("/usr/bin/shellcheck").exists(), "shellcheck (package shellcheck)");
    need!(Path::new("/usr/bin/rpmspec").exists(), "rpmspec (package rpm)");
    need!(Path::new("/usr/bin/makepkg").exists(), "makepkg (package makepkg)");
    need!(Path::new("/usr/bin/nix-instantiate").exists(), "nix-instantiate (package nix-bin)");
    let scratch = tempfile::tempdir()?;
    let archive = scratch.path().join("archive");
    fs::write(&archive, "the sources")?;
    let to = scratch.path().join("filled");
    let source = "https://example.org/docker-rootless-extras-1.2.3.tar.gz";
    let mut fill = Command::new(packaging()?.join("templates/fill.sh"));
    fill.args(["1.2.3", source]).arg(&to).env("SOURCE_ARCHIVE", &archive);
    fill.env("DEBFULLNAME", "Ann Other")
        .env("DEBEMAIL", "ann@example.org")
        .env("SOURCE_DATE_EPOCH", "0");
    run(&mut fill)?;
    for file in files(&to)? {
        let text = fs::read_to_string(&file)?;
        let open = text.split('@').skip(1).step_by(2).find(|word| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        });
        ensure!(open.is_none(), "{} has {open:?}", file.display());
    }
    let read = |name: &str| fs::read_to_string(to.join(name)).with_context(|| name.to_owned());
    // Every one of them goes through the one table of files.
    for name in [
        "debian/rules",
        "fedora/docker-rootless-extras.spec",
        "arch/PKGBUILD",
        "alpine/APKBUILD",
        "nix/package.nix",
    ] {
        ensure!(read(name)?.contains("cargo xtask install --frozen --destdir "), "{name}");
    }
    assert_eq!(
        read("debian/changelog")?.lines().last(),
        Some(" -- Ann Other <ann@example.org>  Thu, 01 Jan 1970 00:00:00 +0000")
    );
    let sum = run(Command::new("sha256sum").arg(&archive))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    for name in ["arch/PKGBUILD", "nix/package.nix"] {
        ensure!(read(name)?.contains(sum), "{name}");
    }

    let spec =
        run(Command::new("rpmspec").arg("-P").arg(to.join("fedora/docker-rootless-extras.spec")))?;
    for line in [
        "Version:        1.2.3",
        &format!("Source0:        {source}"),
        "Provides:       rootlesskit = 1.2.3",
    ] {
        ensure!(spec.contains(line), "{line} in {spec}");
    }
    let pkgbuild = to.join("arch/PKGBUILD");
    shellcheck("bash", &pkgbuild, OTHERS)?;
    // As makepkg reads it, which refuses root and looks for a package manager.
    let home = scratch.path().join("home");
    fs::create_dir(&home)?;
    for dir in [scratch.path(), &home, &to.join("arch")] {
        nix::unistd::chown(dir, Some(NOBODY.into()), Some(NOBODY.into()))?;
    }
    let mut makepkg = Command::new("setpriv");
    makepkg.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
    makepkg.args(["--clear-groups", "makepkg", "--printsrcinfo"]).current_dir(to.join("arch"));
    let told = run(makepkg.env("PACMAN", "true").env("HOME", &home).env("TMPDIR", &home))?;
    for line in [
        "pkgbase = docker-rootless-extras",
        "pkgver = 1.2.3",
        &format!("source = docker-rootless-extras-1.2.3.tar.gz::{source}"),
        &format!("sha256sums = {sum}"),
    ] {
        ensure!(told.lines().any(|told| told.trim() == line), "{line} in {told}");
    }
    let expression = to.join("nix/package.nix");
    let mut nix = Command::new("nix-instantiate");
    nix.arg("--parse").arg(expression).env("HOME", &home).env("NIX_CONF_DIR", &home);
    // It makes its store and its state even to parse.
    for (variable, name) in
        [("NIX_STORE_DIR", "store"), ("NIX_STATE_DIR", "state"), ("NIX_LOG_DIR", "log")]
    {
        nix.env(variable, home.join(name));
    }
    run(&mut nix)?;
    // abuild stops at the first error; `local` is known to the shell of Alpine.
    shellcheck("dash", &to.join("alpine/APKBUILD"), &format!("{OTHERS},SC2164"))?;
    for name in ["alpine/docker-rootless.initd", "alpine/docker-rootless.confd"] {
        shellcheck("dash", &to.join(name), OTHERS)?;
    }
    Ok(())
}

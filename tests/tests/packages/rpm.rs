//! A root into which dnf installs, and a repository of packages for it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;
use tests::{Context as _, Result, TestBox, ensure};

/// The package under test.
pub(super) const PACKAGE: &str = "docker-ce-rootless-extras";

/// Stand-ins: what the package needs of a distribution and of Docker, and what it cannot live with.
const STAND_INS: &str = "
Name: stand-in
Version: 1
Release: 1
Summary: Stand-ins
License: none
BuildArch: noarch
%description
%package -n filesystem
Summary: Folders
%description -n filesystem
%package -n shadow-utils
Summary: Maps of ids
%description -n shadow-utils
%package -n docker-ce
Summary: A daemon
%description -n docker-ce
%package -n rootlesskit
Summary: Another one
%description -n rootlesskit
%install
install -D -m 755 /dev/null %{buildroot}/usr/bin/newuidmap
mkdir -p %{buildroot}/usr/share/doc %{buildroot}/usr/share/man/man1
%files -n filesystem
%dir /usr/share/doc
%dir /usr/share/man
%dir /usr/share/man/man1
%files -n shadow-utils
/usr/bin/newuidmap
%files -n docker-ce
%files -n rootlesskit
";

/// A file that only the older version has.
pub(super) const OLD_FILE: &str = "usr/share/doc/docker-ce-rootless-extras/OLD";

/// Packages, and a root of its own that knows only them.
pub(super) struct Dnf {
    scratch: tempfile::TempDir,
}

impl Dnf {
    /// Makes the repository: `package`, an older version of it, and what stands in for a distribution.
    pub(super) fn with(package: &Path) -> Result<Self> {
        let own = Self { scratch: tempfile::tempdir()? };
        for folder in ["repo", "root", "old", "build", "log"] {
            fs::create_dir(own.path(folder))?;
        }
        // Debian's rpm has its database at home otherwise, also in a root of its own.
        fs::write(own.path(".rpmmacros"), "%_dbpath /var/lib/rpm\n")?;
        let spec = own.path("stand-ins.spec");
        fs::write(&spec, STAND_INS)?;
        own.rpmbuild(&[], &spec)?;
        own.older(package)?;
        fs::copy(package, own.path("repo/new.rpm"))?;
        run(Command::new("createrepo_c").arg("--quiet").arg(own.path("repo")))?;
        Ok(own)
    }

    /// Packs version 0.0.1 out of the files of `package`: one program has other bytes, and one file is more.
    fn older(&self, package: &Path) -> Result<()> {
        let tree = self.path("old");
        let mut unpack = self.rpm_in("old");
        run(unpack.args(["-i", "--nodeps"]).arg(package))?;
        fs::write(tree.join(OLD_FILE), "old\n")?;
        let program = tree.join("usr/bin/dockerd-rootless");
        let bytes = [fs::read(&program)?, b"old\n".to_vec()].concat();
        fs::write(&program, bytes)?;
        let mut list = format!("/{OLD_FILE}\n");
        for (path, mode) in files_of(&mut self.rpm_in("old"))? {
            let kind = if mode.starts_with('d') { "%dir " } else { "" };
            list.push_str(&format!("{kind}{path}\n"));
        }
        let manifest = self.path("manifest");
        fs::write(&manifest, list)?;
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
        // Nothing of the database that unpacking left.
        fs::remove_dir_all(tree.join("var")).context("the database")?;
        let defines = [
            "package_version 0.0.1".to_owned(),
            format!("stage {}", tree.display()),
            format!("manifest {}", manifest.display()),
        ];
        self.rpmbuild(&defines, &own.join(format!("packaging/rpm/{PACKAGE}.spec")))
    }

    fn rpmbuild(&self, defines: &[String], spec: &Path) -> Result<()> {
        let mut command = self.command("rpmbuild");
        command.args(["-bb", "--quiet"]);
        for define in defines.iter().cloned().chain([
            format!("_topdir {}", self.path("build").display()),
            format!("_rpmdir {}", self.path("repo").display()),
            format!("_dbpath {}", self.path("build/db").display()),
        ]) {
            command.args(["--define", &define]);
        }
        run(command.arg(spec)).map(drop)
    }

    /// A program whose home is ours.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", self.scratch.path());
        command
    }

    fn rpm_in(&self, folder: &str) -> Command {
        let mut command = self.command("rpm");
        command.arg("--root").arg(self.path(folder));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A file in the root.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path("root").join(name.trim_start_matches('/'))
    }

    /// dnf(8) on the root.
    pub(super) fn dnf(&self, words: &[&str]) -> Command {
        let mut command = self.command("dnf");
        command.args(["-y", "--quiet", "--releasever=41", "--nogpgcheck", "--repo=local"]);
        command.arg(format!("--installroot={}", self.path("root").display()));
        command.arg(format!("--repofrompath=local,file://{}", self.path("repo").display()));
        for (option, folder) in [("reposdir", "none"), ("cachedir", "cache"), ("logdir", "log")] {
            command.arg(format!("--setopt={option}={}", self.path(folder).display()));
        }
        command.args(words);
        command
    }

    /// rpm(8) on the root.
    pub(super) fn rpm(&self, words: &[&str]) -> Command {
        let mut command = self.rpm_in("root");
        command.args(words);
        command
    }

    /// Files of the installed package with their modes, as ls(1) shows them.
    pub(super) fn files(&self) -> Result<BTreeMap<String, String>> {
        files_of(&mut self.rpm(&[]))
    }

    /// Every path in the root but those of the package manager's own notes.
    pub(super) fn tree(&self) -> Result<String> {
        let own = "( -path ./var/lib -o -path ./var/cache -o -path ./var/log ) -prune -o -print";
        let mut find = Command::new("find");
        let text = run(find.arg(".").args(own.split(' ')).current_dir(self.path("root")))?;
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        Ok(lines.join("\n"))
    }

    /// Copies the installed package into a box.
    pub(super) fn copy_to(&self, b: &TestBox) -> Result<()> {
        let list = self.path("list");
        let files = self.files()?.into_keys().map(|path| path.trim_start_matches('/').to_owned());
        fs::write(&list, files.collect::<Vec<_>>().join("\n"))?;
        let archive = b.path("/tmp/package.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(self.path("root")).arg("--no-recursion").arg("-cf").arg(&archive);
        run(tar.arg("-T").arg(&list))?;
        b.root("tar -xf /tmp/package.tar -C / && rm /tmp/package.tar").ok().map(drop)
    }

    /// The mode of a file of the root.
    pub(super) fn mode(&self, name: &str) -> Result<u32> {
        let meta = fs::metadata(self.file(name)).with_context(|| name.to_owned())?;
        Ok(meta.permissions().mode() & 0o7777)
    }
}

fn files_of(rpm: &mut Command) -> Result<BTreeMap<String, String>> {
    let text = run(rpm.args(["-q", PACKAGE, "--qf", "[%{FILENAMES} %{FILEMODES:perms}\n]"]))?;
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let files: BTreeMap<_, _> = lines.map(|(path, mode)| (path.into(), mode.into())).collect();
    ensure!(files.len() > 30, "files are missing: {files:#?}");
    Ok(files)
}
